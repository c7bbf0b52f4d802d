//! Tests of the shipped systemd units with systemd's own tools: syntax, sandboxing, paths.

#![expect(clippy::print_stdout, reason = "prints that it skips")]

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The exposure level of `systemd-analyze security`, times ten: 1.5.
const EXPOSURE_THRESHOLD: &str = "15";

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// Returns the tool's output. If the tool is not installed, it prints that and returns `None`.
fn analyze(arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: systemd-analyze cannot be run: {error}");
            None
        }
    }
}

#[test]
fn units_verify_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();

    for name in ["hf-mem-probe.service", "hf-mem-probe.socket"] {
        // The installed path does not exist on the build machine.
        let text = fs::read_to_string(units().join(name))
            .unwrap()
            .replace("/usr/bin/hf-mem-probe", "/bin/true");
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        paths.push(path.to_str().unwrap().to_owned());
    }

    let Some(output) = analyze(&["verify", "--man=no", &paths[0], &paths[1]]) else {
        return;
    };

    // An unknown key is only a warning, with exit code 0.
    let warnings = String::from_utf8_lossy(&output.stderr);

    // Ignore warnings about other units of this machine.
    let ours: Vec<&str> = warnings
        .lines()
        .filter(|line| line.contains("hf-mem-probe"))
        .collect();
    assert!(output.status.success() && ours.is_empty(), "{warnings}");
}

#[test]
fn service_exposure_is_low() {
    let service = units().join("hf-mem-probe.service");
    let Some(version) = analyze(&["--version"]) else {
        return;
    };

    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let number = version
        .split_whitespace()
        .nth(1)
        .and_then(|number| number.parse::<u32>().ok());
    if number.is_none_or(|number| number < 250) {
        println!("skipped: systemd-analyze before version 250 cannot check a file: {version}");
        return;
    }

    let threshold = format!("--threshold={EXPOSURE_THRESHOLD}");
    let Some(output) = analyze(&[
        "security",
        "--no-pager",
        "--offline=true",
        &threshold,
        service.to_str().unwrap(),
    ]) else {
        return;
    };

    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}");
}

#[test]
fn units_match_default_paths() {
    let service = fs::read_to_string(units().join("hf-mem-probe.service")).unwrap();
    let socket = fs::read_to_string(units().join("hf-mem-probe.socket")).unwrap();
    let config = hf_mem_probe::config::Config::default();
    assert!(socket.contains(&format!(
        "\nListenStream={}\n",
        config.socket.path.display()
    )));
    assert!(socket.contains(&format!("\nSocketGroup={}\n", config.socket.group)));
    assert!(socket.contains(&format!("\nSocketMode={:04o}\n", config.socket.mode.0)));
    assert!(service.contains("\nStateDirectory=hf-mem-probe\n"));

    assert_eq!(
        config.leases.state_directory,
        Path::new("/var/lib/hf-mem-probe")
    );
    assert!(service.contains("\nCacheDirectory=hf-mem-probe\n"));

    assert_eq!(
        config.hub.cache_directory,
        Path::new("/var/cache/hf-mem-probe")
    );
    assert!(
        service.contains("\nTimeoutStopSec=20s\n") && config.socket.drain_deadline.as_secs() < 20
    );
}

/// Returns whether `network` (`10.0.0.0/8`, or one address) contains `address`.
fn contains_address(network: &str, address: IpAddr) -> bool {
    let (base, length) = network
        .split_once('/')
        .map_or((network, None), |(base, length)| (base, Some(length)));
    let base: IpAddr = base
        .parse()
        .unwrap_or_else(|error| panic!("{network}: {error}"));

    let max_length = if base.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(max_length, |length| {
        length
            .parse()
            .unwrap_or_else(|error| panic!("{network}: {error}"))
    });

    let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    base.is_ipv4() == address.is_ipv4() && (address_bits(base) ^ address_bits(address)) & mask == 0
}

/// The address in the high bits of a number.
fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[test]
fn metadata_services_are_denied() {
    let unit = fs::read_to_string(units().join("hf-mem-probe.service")).unwrap();
    assert!(unit.contains("\nIPAddressDeny=any\n"));

    let allowed: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("IPAddressAllow="))
        .flat_map(str::split_whitespace)
        .collect();
    let is_allowed = |address: &str| {
        let address = address.parse().unwrap();
        allowed
            .iter()
            .any(|network| contains_address(network, address))
    };

    for open in [
        "127.0.0.53",
        "10.0.0.1",
        "192.168.1.1",
        "8.8.8.8",
        "223.255.255.254",
        "100.100.2.136",
        "100.100.100.201",
        "169.254.169.253",
        "169.254.169.254",
        "168.63.129.16",
        "::1",
        "2606:4700::1",
        "fd00:ec2::253",
        "fd20:ce::254",
        "fdff::1",
        "64:ff9b::808:808",
    ] {
        assert!(is_allowed(open), "{open}");
    }

    for closed in [
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.1.1",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "192.0.0.192",
        "::",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "64:ff9b::a9fe:a9fe",
    ] {
        assert!(!is_allowed(closed), "{closed}");
    }
}
