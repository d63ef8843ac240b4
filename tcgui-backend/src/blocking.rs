//! Runs work that may block, on the runtime's blocking threads.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::sync::oneshot;

/// Runs `work` on a blocking thread and returns its result. A panic of `work` continues in the caller.
///
/// While the runtime shuts down, blocking work is cancelled. Then this never returns.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    run_with_rest(move || (work(), ()), drop).await
}

/// Runs `work` as [`run`] does, and returns the first part of its result at once. Then the thread runs `rest` with
/// the second part.
pub(crate) async fn run_with_rest<T, R>(
    work: impl FnOnce() -> (T, R) + Send + 'static,
    rest: impl FnOnce(R) + Send + 'static,
) -> T
where
    T: Send + 'static,
{
    let (tx, rx) = oneshot::channel();
    let thread = tokio::task::spawn_blocking(move || {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok((result, left)) => {
                // The caller may no longer wait. The work is done anyway.
                tx.send(Ok(result)).ok();
                rest(left);
            }
            Err(panic) => drop(tx.send(Err(panic))),
        }
    });
    // The result arrives through the channel.
    drop(thread);
    match rx.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_result_does_not_wait_for_the_rest() {
        let (go, gate) = mpsc::channel();
        let (done, ended) = mpsc::channel();
        let rest = move |text: &'static str| {
            gate.recv().unwrap();
            done.send(text).unwrap();
        };
        assert_eq!(run_with_rest(|| (7, "rest"), rest).await, 7);
        go.send(()).unwrap();
        assert_eq!(run(move || ended.recv().unwrap()).await, "rest");
    }

    #[tokio::test]
    #[should_panic(expected = "on purpose")]
    async fn a_panic_reaches_the_caller() {
        run(|| panic!("on purpose")).await
    }
}
