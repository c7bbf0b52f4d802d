//! Resets the service manager's watchdog while the parts that could hang respond.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, info};

use super::Notifier;
use crate::server::service::Service;

/// Resets the watchdog every half `period` while the service is alive. Otherwise the service
/// manager ends the process and restarts it.
pub(super) async fn watch<S: Service>(service: Arc<S>, notifier: Notifier, period: Duration) {
    let pause = (period / 2).max(Duration::from_millis(1));
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_alive = true;

    loop {
        ticks.tick().await;
        let alive = timeout(pause, service.liveness())
            .await
            .unwrap_or_else(|_| {
                Err("the sampler and the lease broker did not answer in time".to_owned())
            });

        match alive {
            Ok(()) => {
                notifier.alive();
                if !was_alive {
                    info!("alive again");
                }
                was_alive = true;
            }
            Err(stuck) => {
                error!(
                    %stuck,
                    "not resetting the watchdog; the service manager will restart the daemon"
                );
                was_alive = false;
            }
        }
    }
}
