//! Damaged bundles, files of other programs, other versions and malicious files: each fails with
//! its own message.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use hf_mem_core::model::metadata::VERSION;
use sha2::{Digest as _, Sha256};

use super::harness::User;

fn packed(text: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(text).expect("packed");
    packer.finish().expect("packed")
}

fn with_lead(version: u32, body: &[u8]) -> Vec<u8> {
    let hash = Sha256::digest(body)
        .iter()
        .fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
    let lead =
        format!(r#"{{"format":"hf-mem-probe bundle","version":{version},"sha256":"{hash}"}}"#);
    packed(&[lead.as_bytes(), b"\n", body].concat())
}

#[tokio::test]
async fn each_damage_is_named() {
    let user = User::of("http://127.0.0.1:9").with("HF_HUB_OFFLINE", "1");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/Qwen3-8B");
    assert_eq!(
        user.run(&format!("pack {model} -o good.hfmp")).await.code,
        0
    );
    let good = std::fs::read(user.path("good.hfmp")).expect("a bundle");
    assert_eq!(user.run("estimate good.hfmp --json").await.code, 0);
    let mut text = Vec::new();
    GzDecoder::new(good.as_slice())
        .read_to_end(&mut text)
        .expect("gzip");

    let at = text
        .iter()
        .position(|&byte| byte == b'\n')
        .expect("a first line");
    let body = &text[at + 1..];
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;

    // 64 MiB of spaces pack into some kilobytes. The first line has the right hash.
    let bomb = with_lead(VERSION, &vec![b' '; 64 << 20]);
    let nested = with_lead(VERSION, &vec![b'['; 1 << 20]);

    let changed = [
        &text[..=at],
        String::from_utf8_lossy(body)
            .replace("Qwen3", "Qwen4")
            .as_bytes(),
    ]
    .concat();

    let newer = format!("version 99 and this program reads {VERSION}; update it");
    let cases: [(&str, Vec<u8>, &str); 11] = [
        ("a bit flipped", flipped, "damaged"),
        ("cut in half", good[..good.len() / 2].to_vec(), "damaged"),
        (
            "cut in the first line",
            good[..24].to_vec(),
            "its beginning is damaged",
        ),
        (
            "content changed",
            packed(&changed),
            "does not have the hash",
        ),
        ("empty", Vec::new(), "not a bundle"),
        ("no gzip", b"not gzip at all".to_vec(), "not a bundle"),
        (
            "another program's gzip",
            packed(b"{\"weights\": []}\n"),
            "not a bundle",
        ),
        ("a newer version", with_lead(99, body), &newer),
        ("an old version", with_lead(0, body), "old version 0"),
        ("a bomb", bomb, "unpacks to more than"),
        ("a tower of brackets", nested, "cannot be read"),
    ];

    for (what, bytes, says) in cases {
        std::fs::write(user.path("bad.hfmp"), bytes).expect("written");
        for line in [
            "estimate bad.hfmp --json",
            "fits bad.hfmp --gpus 24GiB --json",
            "pack bad.hfmp -o other --json",
        ] {
            let outcome = user.run(line).await;
            let said = outcome.json();
            assert_eq!(
                (outcome.code, said["reason"].as_str()),
                (3, Some("missing_metadata")),
                "{what}: {outcome:?}"
            );

            let detail = said["detail"].as_str().expect("a detail");
            assert!(
                detail.starts_with("bad.hfmp: ") && detail.contains(says),
                "{what}: {detail}"
            );
        }
    }

    let outcome = user.run("estimate good.hfmp --file Q4_K_M --json").await;
    assert_eq!(outcome.code, 3, "{outcome:?}");

    assert!(
        outcome
            .out
            .contains("not Q4_K_M; pack it with --file Q4_K_M"),
        "{outcome:?}"
    );
}

/// A bomb costs at most the limit of a bundle, not its unpacked size: the test limits the address
/// space below that.
#[tokio::test]
async fn bomb_is_not_unpacked() {
    let user = User::of("http://127.0.0.1:9").with("HF_HUB_OFFLINE", "1");
    std::fs::write(
        user.path("bomb.hfmp"),
        with_lead(VERSION, &vec![b' '; 256 << 20]),
    )
    .expect("written");

    let program = user.program().get_program().to_owned();
    let mut command = std::process::Command::new("sh");
    command
        .arg("-c")
        .arg("ulimit -v 160000; exec \"$0\" estimate bomb.hfmp --json")
        .arg(program);

    command
        .current_dir(user.home.path())
        .env_clear()
        .env("HOME", user.home.path())
        .env("HF_HUB_OFFLINE", "1");

    let output = command.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();

    assert_eq!(
        output.status.code(),
        Some(3),
        "{said} {}",
        String::from_utf8_lossy(&output.stderr)
    );

    assert!(said.contains("unpacks to more than"), "{said}");
}
