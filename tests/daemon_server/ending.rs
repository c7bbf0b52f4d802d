//! READY, reload, signs of life, and the end.

use std::time::Duration;

use hf_mem_probe::admission::limits::Limits;
use hf_mem_probe::daemon::{Ended, Signal};
use hf_mem_probe::server::Drained;

use super::double::{question, roomy, start, start_with};

#[tokio::test]
async fn ready_comes_first_and_the_socket_leaves_with_the_daemon() {
    let mut daemon = start(roomy());
    let socket = daemon.socket();
    let ready = daemon.told("READY=1").await;
    assert!(ready.contains("STATUS=answering on "), "{ready}");
    assert!(socket.exists());
    let program = std::sync::Arc::clone(&daemon.program);

    assert_eq!(
        daemon.stop().await,
        Ended {
            by: "SIGTERM",
            drained: Drained::Clean
        }
    );

    assert!(!socket.exists());
    assert!(
        *program.stopped.lock().unwrap(),
        "the program wrote down what must survive"
    );
}

#[tokio::test]
async fn what_is_in_flight_is_answered() {
    let mut daemon = start(roomy());
    let client = daemon.client();
    let asked = tokio::spawn(async move { client.fits(&question("slow/x")).await });
    daemon.begun(1).await;
    daemon.signals.send(Signal::Stop("SIGTERM")).await.unwrap();
    daemon.told("STOPPING=1").await;
    daemon.program.gate.add_permits(1);
    assert_eq!(asked.await.unwrap().unwrap().model.repo, "slow/x");
    assert_eq!(daemon.ended.await.unwrap().unwrap().drained, Drained::Clean);
}

#[tokio::test]
async fn nobody_new_is_taken_while_stopping() {
    let mut daemon = start(roomy());
    let client = daemon.client();
    let asked = tokio::spawn(async move { client.fits(&question("slow/x")).await });
    daemon.begun(1).await;
    daemon.signals.send(Signal::Stop("SIGTERM")).await.unwrap();
    daemon.told("STOPPING=1").await;

    // The listener closes as soon as the server has seen the signal; until then a caller may still
    // get in.
    while !daemon
        .client()
        .health()
        .await
        .is_err_and(|error| error.daemon_is_absent())
    {
        tokio::task::yield_now().await;
    }

    daemon.program.gate.add_permits(1);
    asked.await.unwrap().unwrap();
    daemon.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_drain_has_a_deadline() {
    let daemon = start(Limits {
        drain_deadline: Duration::from_millis(100),
        ..roomy()
    });
    let client = daemon.client();
    let asked = tokio::spawn(async move { client.fits(&question("slow/x")).await });
    daemon.begun(1).await;
    let ended = daemon.stop().await;
    assert_eq!(ended.drained, Drained::Cut { connections: 1 });
    asked.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let mut daemon = start(Limits {
        drain_deadline: Duration::from_secs(600),
        ..roomy()
    });
    let client = daemon.client();
    let asked = tokio::spawn(async move { client.fits(&question("slow/x")).await });
    daemon.begun(1).await;
    daemon.signals.send(Signal::Stop("SIGTERM")).await.unwrap();
    daemon.told("STOPPING=1").await;
    daemon.signals.send(Signal::Stop("SIGINT")).await.unwrap();

    assert_eq!(
        daemon.ended.await.unwrap().unwrap().drained,
        Drained::Abandoned
    );
    asked.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_reload_takes_the_file_anew_and_a_bad_one_changes_nothing() {
    let mut daemon = start_with(roomy(), None, Some("[hub]\noffline = true\n"));
    daemon.told("READY=1").await;
    daemon.signals.send(Signal::Reload).await.unwrap();
    let reloading = daemon.told("RELOADING=1").await;
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    let ready = daemon.told("READY=1").await;
    assert!(
        ready.ends_with("a restart is needed for socket.path"),
        "{ready}"
    );
    assert_eq!(*daemon.program.reloads.borrow(), 1);

    std::fs::write(
        daemon.folder.path().join("config.toml"),
        "[hub]\nonline = true\n",
    )
    .unwrap();

    daemon.signals.send(Signal::Reload).await.unwrap();
    let ready = daemon.told("READY=1").await;
    assert!(
        ready.contains("refused") && ready.contains(":2: unknown field `online`"),
        "{ready}"
    );
    assert_eq!(ready.lines().count(), 2, "{ready}");
    assert_eq!(*daemon.program.reloads.borrow(), 1);
    daemon.client().health().await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn a_hung_reload_does_not_hold_up_the_end() {
    let mut daemon = start_with(roomy(), None, Some("[hub]\nendpoint = \"http://hangs\"\n"));
    daemon.told("READY=1").await;
    daemon.signals.send(Signal::Reload).await.unwrap();
    daemon.told("RELOADING=1").await;
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
async fn a_pipe_as_configuration_is_refused_at_reload() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    let mut daemon = start_with(roomy(), None, Some(""));
    daemon.told("READY=1").await;
    let config = daemon.folder.path().join("config.toml");
    std::fs::remove_file(&config).unwrap();
    mknodat(CWD, &config, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    daemon.signals.send(Signal::Reload).await.unwrap();
    let ready = daemon.told("READY=1").await;
    assert!(
        ready.contains("refused") && ready.contains("a named pipe, not a regular file"),
        "{ready}"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn signs_of_life_stop_while_a_part_hangs() {
    let mut daemon = start_with(roomy(), Some(Duration::from_millis(40)), None);
    daemon.told("WATCHDOG=1").await;
    daemon.told("WATCHDOG=1").await;
    *daemon.program.stuck.lock().unwrap() = Some("the sampler hangs in the driver".to_owned());

    // What was told before it hung may still be on its way; after that there is silence.
    while tokio::time::timeout(Duration::from_millis(200), daemon.told.recv())
        .await
        .is_ok()
    {}
    *daemon.program.stuck.lock().unwrap() = None;

    daemon.told("WATCHDOG=1").await;
    daemon.stop().await;
}
