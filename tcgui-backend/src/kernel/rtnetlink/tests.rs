//! Requests to the running kernel, and answers that only a test can make.

use super::*;

#[tokio::test]
async fn lists_the_links_of_the_own_namespace() {
    let kernel = Rtnetlink::open(1).unwrap();
    let links = kernel.run(|socket| socket.links(None)).await.unwrap();
    let lo = links
        .iter()
        .find(|link| link.ifname == "lo")
        .expect("every namespace has lo");
    assert!(lo.loopback);
    assert_eq!(lo.ifindex, 1);
}

#[tokio::test]
async fn a_refusal_carries_the_text_of_the_kernel_and_the_socket_goes_on() {
    let kernel = Rtnetlink::open(1).unwrap();
    let refused = kernel
        .run(|socket| socket.links(Some(Nsid(0x7fff_fff0))))
        .await
        .unwrap_err();
    assert_eq!(refused.errno(), Some(nix::libc::EINVAL));
    assert!(
        refused.to_string().contains("target network namespace"),
        "{refused}"
    );
    assert!(
        kernel
            .run(|socket| socket.links(None))
            .await
            .is_ok_and(|links| !links.is_empty())
    );
}
