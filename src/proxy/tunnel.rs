//! A connection that has become another protocol's: bytes go both ways until both sides have ended, or neither says anything any more.

use std::cell::Cell;

use super::timer::Timers;
use super::wire::{Buffer, LARGEST, Wire, WireError};

/// Carries bytes between two connections. `idle_timeout` milliseconds of silence on both end it. What is in the buffers goes first.
pub async fn tunnel(
    timers: &Timers,
    client: (&Wire, &mut Buffer),
    arm: (&Wire, &mut Buffer),
    idle_timeout: u64,
) {
    let last = Cell::new(timers.now());
    let up = carry(timers, (client.0, client.1), arm.0, (&last, idle_timeout));
    let down = carry(timers, (arm.0, arm.1), client.0, (&last, idle_timeout));
    // A side that broke leaves the other nothing to say.
    if let Err(error) = tokio::try_join!(up, down) {
        tracing::debug!(?error, "a tunnel ended");
    }
}

/// One direction, to its end, which is passed on.
async fn carry(
    timers: &Timers,
    from: (&Wire, &mut Buffer),
    to: &Wire,
    (last, idle_timeout): (&Cell<u64>, u64),
) -> Result<(), WireError> {
    let (wire, buffer) = from;
    loop {
        if !buffer.is_empty() {
            to.write(&[buffer.data()], idle_timeout).await?;
            buffer.consume(usize::MAX / 2);
            last.set(timers.now());
        }
        let quiet = timers.now().saturating_sub(last.get());
        match wire
            .fill(buffer, LARGEST, idle_timeout.saturating_sub(quiet))
            .await
        {
            Ok(0) => return to.shutdown(idle_timeout).await,
            Ok(_) => {}
            Err(WireError::Silent) if timers.now() < last.get() + idle_timeout => {}
            Err(error) => return Err(error),
        }
    }
}
