//! Latency and rate of answers on the daemon's socket, compared with a bare echo on the same server
//! stack.
//!
//! `cargo run --release --example socket_speed -- SOCKET BODY.json [one|many]`; pin it with
//! `taskset` to compare figures. `tests/load/speed.py` runs it with its own daemon. Five rounds
//! measure both in alternation.
#![expect(clippy::print_stdout, reason = "prints its figures")]

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::routing::post;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;

type Failure = Box<dyn Error + Send + Sync>;

/// Rounds of each measurement; the median of their ratios is the figure.
const ROUNDS: usize = 5;
const QUESTIONS: usize = 1500;
const CALLERS: usize = 64;
const LOAD: Duration = Duration::from_secs(1);

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(daemon), Some(body)) = (arguments.next(), arguments.next()) else {
        return Err("usage: socket_speed SOCKET BODY.json [one|many]".into());
    };

    let only = arguments.next();
    let is_wanted = |what: &str| only.as_deref().is_none_or(|only| only == Path::new(what));
    let body = std::fs::read(body)?;
    let folder = tempfile::tempdir()?;
    let echo = folder.path().join("echo.sock");
    let listener = std::os::unix::net::UnixListener::bind(&echo)?;
    listener.set_nonblocking(true)?;
    std::thread::spawn(move || serve_echo(listener));

    let fits = request("/v1/fits", &body);
    let bare = request("/echo", &body);
    if is_wanted("one") {
        measure_one_caller(&daemon, &echo, &fits, &bare)?;
    }

    if is_wanted("many") {
        measure_many_callers(&daemon, &echo, &fits, &bare)?;
    }

    Ok(())
}

/// The figures of a round for the daemon and the echo.
struct Round {
    daemon: f64,
    echo: f64,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.daemon / self.echo
    }
}

/// Measures the latency with one caller.
fn measure_one_caller(daemon: &Path, echo: &Path, fits: &[u8], bare: &[u8]) -> Result<(), Failure> {
    let mut to_daemon = UnixStream::connect(daemon)?;
    let mut to_echo = UnixStream::connect(echo)?;
    let mut rounds = Vec::new();

    for _ in 0..ROUNDS {
        let (mut daemon_times, mut echo_times) = (Vec::new(), Vec::new());
        for question in 0..QUESTIONS {
            // The requests alternate, so that other load on the machine affects both.
            let taken = (
                time_request(&mut to_daemon, fits)?,
                time_request(&mut to_echo, bare)?,
            );
            if question >= QUESTIONS / 10 {
                daemon_times.push(taken.0.as_secs_f64() * 1e6);
                echo_times.push(taken.1.as_secs_f64() * 1e6);
            }
        }

        rounds.push(Round {
            daemon: median(&mut daemon_times),
            echo: median(&mut echo_times),
        });
    }

    report(
        &format!("one caller, {} byte question, µs", fits.len()),
        &rounds,
    );

    Ok(())
}

/// Measures the rate with many callers, in short alternating runs.
fn measure_many_callers(
    daemon: &Path,
    echo: &Path,
    fits: &[u8],
    bare: &[u8],
) -> Result<(), Failure> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let echo = rate(echo, bare)?;
        rounds.push(Round {
            daemon: rate(daemon, fits)?,
            echo,
        });
    }

    report(&format!("{CALLERS} callers, answers/s"), &rounds);
    Ok(())
}

/// Prints the medians over all rounds, and each round's ratio. A disturbed round does not move
/// them.
fn report(what: &str, rounds: &[Round]) {
    let median_of =
        |figure: fn(&Round) -> f64| median(&mut rounds.iter().map(figure).collect::<Vec<_>>());
    let each: Vec<String> = rounds
        .iter()
        .map(|round| format!("{:.2}", round.ratio()))
        .collect();

    println!(
        "{what}: daemon {:.1}, echo {:.1}, ratio {:.2}, median of {} rounds ({})",
        median_of(|round| round.daemon),
        median_of(|round| round.echo),
        median_of(Round::ratio),
        rounds.len(),
        each.join(" ")
    );
}

/// Serves an echo with hyper and axum as the daemon uses them, and nothing else.
fn serve_echo(listener: std::os::unix::net::UnixListener) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;

    runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let routes = axum::Router::new().route("/echo", post(|body: Bytes| async { body }));
        loop {
            let (stream, _) = listener.accept().await?;
            let service = TowerToHyperService::new(routes.clone());

            tokio::spawn(async move {
                let mut server = hyper::server::conn::http1::Builder::new();
                server
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(30));
                // A disconnected caller is normal.
                let _ended = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The duration of one request until its whole answer is read.
fn time_request(stream: &mut UnixStream, request: &[u8]) -> Result<Duration, Failure> {
    let start = Instant::now();
    stream.write_all(request)?;
    let mut held = Vec::new();
    let mut part = vec![0; 65536];

    loop {
        let length = stream.read(&mut part)?;
        held.extend_from_slice(part.get(..length).unwrap_or_default());

        if length == 0 {
            return Err(format!("closed after {} bytes", held.len()).into());
        }

        let Some(end) = held.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };

        let head =
            String::from_utf8_lossy(held.get(..end).unwrap_or_default()).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(head.into());
        }

        let wanted: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .ok_or("no length")?
            .trim()
            .parse()?;

        if held.len() >= end + 4 + wanted {
            return Ok(start.elapsed());
        }
    }
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// Answers per second for [`CALLERS`] callers that each ask again at once.
fn rate(socket: &Path, request: &[u8]) -> Result<f64, Failure> {
    let end = Instant::now() + LOAD;
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (socket, request) = (socket.to_owned(), request.to_owned());
            std::thread::spawn(move || -> Result<u32, Failure> {
                let mut stream = UnixStream::connect(socket)?;
                let mut count = 0;
                while Instant::now() < end {
                    time_request(&mut stream, &request)?;
                    count += 1;
                }
                Ok(count)
            })
        })
        .collect();

    let mut all = 0;
    for caller in callers {
        all += caller.join().map_err(|_| "a caller broke")??;
    }

    Ok(f64::from(all) / LOAD.as_secs_f64())
}
