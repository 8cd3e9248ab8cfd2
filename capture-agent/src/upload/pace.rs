//! The bandwidth: bytes pass in small pieces, each after a pause that keeps to the rate.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Shared by all that sends and receives.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    /// When the bytes that passed so far have had their time.
    free: Arc<Mutex<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, free: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Waits until `bytes` may pass.
    pub(super) async fn pass(&self, bytes: usize) {
        let Some(time) = self.time(bytes as u64) else { return };
        let until = {
            let mut free = self.free.lock().await;
            // Time in which nothing passed is not made up for.
            *free = (*free).max(Instant::now()) + time;
            *free
        };
        tokio::time::sleep_until(until).await;
    }

    /// How long `bytes` take; none: no time.
    pub(super) fn time(&self, bytes: u64) -> Option<Duration> {
        let rate = self.bytes_per_second?;
        Some(Duration::from_secs_f64(bytes as f64 / rate as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(Some(1_000));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..10 {
            pace.pass(500).await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        Pace::new(None).pass(1 << 40).await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }
}
