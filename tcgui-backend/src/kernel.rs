//! Access to the kernel: network namespaces, rtnetlink, capabilities, limits.
//!
//! Only this folder uses `nix` and the netlink crates, and only here is `unsafe` allowed. No signature that leaves
//! the folder contains a type of those crates. Each function is one operation with a result; decisions are made
//! elsewhere.

#[cfg(feature = "daemon")]
pub mod boot;
#[cfg(feature = "daemon")]
pub mod bottleneck_probe;
#[cfg(feature = "daemon")]
pub mod ethtool;
#[cfg(feature = "daemon")]
pub mod icmp;
pub mod inode;
#[cfg(all(test, feature = "daemon"))]
pub(crate) mod lab;
#[cfg(feature = "daemon")]
pub mod link;
#[cfg(feature = "daemon")]
pub mod machine;
#[cfg(feature = "daemon")]
pub mod modules;
pub mod mount_table;
#[cfg(feature = "daemon")]
pub mod mountinfo;
#[cfg(feature = "daemon")]
pub mod netem;
pub mod netns;
pub mod pidfd;
#[cfg(feature = "daemon")]
pub mod private_dir;
pub mod proc_link;
#[cfg(feature = "daemon")]
pub mod process;
#[cfg(feature = "daemon")]
pub mod process_events;
#[cfg(feature = "daemon")]
pub mod processes;
#[cfg(feature = "daemon")]
pub mod qdisc;
#[cfg(feature = "daemon")]
pub mod route;
#[cfg(feature = "daemon")]
pub mod rtnetlink;
#[cfg(feature = "daemon")]
pub mod socket_file;
#[cfg(feature = "daemon")]
pub mod tbf;
