//! Work that may block, on the runtime's threads for it.

/// Runs `work` on a blocking thread and returns what it returns; its panic goes on here.
///
/// While the runtime shuts down, blocking work is cancelled; then this never returns.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(err) => match err.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
