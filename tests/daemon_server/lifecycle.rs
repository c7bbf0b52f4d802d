//! READY, reload, watchdog, and shutdown.

use std::time::Duration;

use hf_mem_probe::admission::server_limits::ServerLimits;
use hf_mem_probe::daemon::{Ended, Signal};
use hf_mem_probe::server::Drained;

use super::double::{default_limits, question, start, start_with};

#[tokio::test]
async fn socket_exists_from_ready_to_stop() {
    let mut daemon = start(default_limits());
    let socket = daemon.socket();
    let ready = daemon.notification("READY=1").await;
    assert!(ready.contains("STATUS=answering on "), "{ready}");
    assert!(socket.exists());
    let service = std::sync::Arc::clone(&daemon.service);

    assert_eq!(
        daemon.stop().await,
        Ended {
            by: "SIGTERM",
            drained: Drained::Clean
        }
    );

    assert!(!socket.exists());
    assert!(
        *service.stopped.lock().unwrap(),
        "the service persisted its state"
    );
}

#[tokio::test]
async fn requests_in_flight_are_answered() {
    let mut daemon = start(default_limits());
    let client = daemon.client();
    let asked = tokio::spawn(async move { client.fits(&question("slow/x")).await });
    daemon.begun(1).await;
    daemon.signals.send(Signal::Stop("SIGTERM")).await.unwrap();
    daemon.notification("STOPPING=1").await;
    daemon.service.gate.add_permits(1);
    assert_eq!(asked.await.unwrap().unwrap().model.repo, "slow/x");
    assert_eq!(daemon.ended.await.unwrap().unwrap().drained, Drained::Clean);
}

#[tokio::test]
async fn no_new_connections_while_stopping() {
    let mut daemon = start(default_limits());
    let client = daemon.client();
    let asked = tokio::spawn(async move { client.fits(&question("slow/x")).await });
    daemon.begun(1).await;
    daemon.signals.send(Signal::Stop("SIGTERM")).await.unwrap();
    daemon.notification("STOPPING=1").await;

    // The listener closes as soon as the server has seen the signal. Until then it accepts callers.
    while !daemon
        .client()
        .health()
        .await
        .is_err_and(|error| error.daemon_is_absent())
    {
        tokio::task::yield_now().await;
    }

    daemon.service.gate.add_permits(1);
    asked.await.unwrap().unwrap();
    daemon.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn drain_has_a_deadline() {
    let daemon = start(ServerLimits {
        drain_deadline: Duration::from_millis(100),
        ..default_limits()
    });
    let client = daemon.client();
    let asked = tokio::spawn(async move { client.fits(&question("slow/x")).await });
    daemon.begun(1).await;
    let ended = daemon.stop().await;
    assert_eq!(ended.drained, Drained::Cut { connections: 1 });
    asked.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn second_signal_ends_the_drain() {
    let mut daemon = start(ServerLimits {
        drain_deadline: Duration::from_secs(600),
        ..default_limits()
    });
    let client = daemon.client();
    let asked = tokio::spawn(async move { client.fits(&question("slow/x")).await });
    daemon.begun(1).await;
    daemon.signals.send(Signal::Stop("SIGTERM")).await.unwrap();
    daemon.notification("STOPPING=1").await;
    daemon.signals.send(Signal::Stop("SIGINT")).await.unwrap();

    assert_eq!(
        daemon.ended.await.unwrap().unwrap().drained,
        Drained::Abandoned
    );
    asked.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn reload_rejects_invalid_configuration() {
    let mut daemon = start_with(default_limits(), None, Some("[hub]\noffline = true\n"));
    daemon.notification("READY=1").await;
    daemon.signals.send(Signal::Reload).await.unwrap();
    let reloading = daemon.notification("RELOADING=1").await;
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    let ready = daemon.notification("READY=1").await;
    assert!(
        ready.ends_with("a restart is needed for socket.path"),
        "{ready}"
    );
    assert_eq!(*daemon.service.reloads.borrow(), 1);

    std::fs::write(
        daemon.folder.path().join("config.toml"),
        "[hub]\nonline = true\n",
    )
    .unwrap();

    daemon.signals.send(Signal::Reload).await.unwrap();
    let ready = daemon.notification("READY=1").await;
    assert!(
        ready.contains("rejected") && ready.contains(":2: unknown field `online`"),
        "{ready}"
    );
    assert_eq!(ready.lines().count(), 2, "{ready}");
    assert_eq!(*daemon.service.reloads.borrow(), 1);
    daemon.client().health().await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn hung_reload_does_not_delay_shutdown() {
    let mut daemon = start_with(
        default_limits(),
        None,
        Some("[hub]\nendpoint = \"http://hangs\"\n"),
    );
    daemon.notification("READY=1").await;
    daemon.signals.send(Signal::Reload).await.unwrap();
    daemon.notification("RELOADING=1").await;
    daemon.client().health().await.unwrap();

    assert_eq!(
        daemon.stop().await,
        Ended {
            by: "SIGTERM",
            drained: Drained::Clean
        }
    );
}

#[tokio::test]
async fn reload_rejects_a_pipe() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    let mut daemon = start_with(default_limits(), None, Some(""));
    daemon.notification("READY=1").await;
    let config = daemon.folder.path().join("config.toml");
    std::fs::remove_file(&config).unwrap();
    mknodat(CWD, &config, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    daemon.signals.send(Signal::Reload).await.unwrap();
    let ready = daemon.notification("READY=1").await;
    assert!(
        ready.contains("rejected") && ready.contains("a named pipe, not a regular file"),
        "{ready}"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn watchdog_is_not_reset_while_hung() {
    let mut daemon = start_with(default_limits(), Some(Duration::from_millis(40)), None);
    daemon.notification("WATCHDOG=1").await;
    daemon.notification("WATCHDOG=1").await;
    *daemon.service.stuck.lock().unwrap() = Some("the sampler hangs in the driver".to_owned());

    // Messages from before the hang can still arrive; none follow.
    while tokio::time::timeout(Duration::from_millis(200), daemon.notifications.recv())
        .await
        .is_ok()
    {}
    *daemon.service.stuck.lock().unwrap() = None;

    daemon.notification("WATCHDOG=1").await;
    daemon.stop().await;
}
