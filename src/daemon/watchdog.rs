//! Signs of life, given only while the parts that could hang do answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, info};

use super::Notifier;
use crate::server::service::Service;

/// Tells `notifier` every half `period` that the program lives, and nothing while it does not: the
/// service manager then ends the process, and starts it anew.
pub(super) async fn watch<S: Service>(service: Arc<S>, notifier: Notifier, period: Duration) {
    let pause = (period / 2).max(Duration::from_millis(1));
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut well = true;

    loop {
        ticks.tick().await;
        let alive = timeout(pause, service.liveness())
            .await
            .unwrap_or_else(|_| {
                Err("neither the sampler nor the ledger answered in time".to_owned())
            });

        match alive {
            Ok(()) => {
                notifier.alive();
                if !well {
                    info!("alive again");
                }
                well = true;
            }
            Err(stuck) => {
                error!(%stuck, "no sign of life is given; the service manager will restart the daemon");
                well = false;
            }
        }
    }
}
