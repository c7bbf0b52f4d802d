//! Tests that the documentation page, the alerts and the dashboard match the metrics.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const PAGE: &str = include_str!("../../docs/monitoring.md");
const ALERTS: &str = include_str!("../../packaging/prometheus/alerts.yml");
const DASHBOARD: &str = include_str!("../../packaging/grafana/hf-mem-probe.json");

/// A page with a sample of every family, in the older format.
fn text() -> String {
    let metrics = Metrics::default();
    metrics.question("fits", "fits");
    metrics.took(Stage::Request, Duration::from_micros(40));

    metrics.set_devices(
        &[DeviceFigures {
            uuid: "GPU-1".to_owned(),
            name: "L4".to_owned(),
            total: Bytes::gib(24),
            free: Some(Bytes::gib(20)),
            available: Some(Bytes::gib(20)),
            leased: Some(Bytes::ZERO),
            unusable: None,
            part_of_gpu: false,
        }],
        None,
    );

    metrics.classic_text()
}

/// Returns the families and their types.
fn families(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .collect()
}

/// Returns the labels of a family's samples, without a histogram's bounds.
fn labels<'a>(text: &'a str, family: &str) -> BTreeSet<&'a str> {
    let samples = text.lines().filter_map(|line| line.strip_prefix(family));
    let samples = samples.filter_map(|rest| {
        rest.strip_prefix("_bucket")
            .unwrap_or(rest)
            .strip_prefix('{')
    });

    samples
        .filter_map(|rest| rest.split_once('}'))
        .flat_map(|(labels, _)| labels.split(','))
        .filter_map(|label| label.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| *name != "le")
        .collect()
}

/// Returns the words in backticks.
fn named(cell: &str) -> BTreeSet<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn page_lists_exactly_the_metrics() {
    let text = text();
    let actual: BTreeMap<_, _> = families(&text)
        .into_iter()
        .map(|(name, kind)| (name, (kind, labels(&text, name))))
        .collect();
    let rows = PAGE
        .lines()
        .filter(|line| line.starts_with("| `hf_mem_probe_"));
    let documented: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let (name, kind, labels) = (cells[1].trim_matches('`'), cells[2], named(cells[3]));
            assert!(!cells[5].is_empty(), "{row}");
            (name, (kind, labels))
        })
        .collect();

    assert!(documented.len() > 20, "{documented:?}");
    assert_eq!(documented, actual);
}

#[test]
fn page_lists_exactly_the_alerts() {
    let actual: BTreeSet<&str> = ALERTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    let rows = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `HfMemProbe"));
    let documented: BTreeSet<String> = rows
        .map(|row| {
            let (name, rest) = row.split_once('`').unwrap();
            assert_eq!(
                rest.split('|')
                    .filter(|cell| !cell.trim().is_empty())
                    .count(),
                2,
                "{row}"
            );

            format!("HfMemProbe{name}")
        })
        .collect();

    assert!(actual.len() > 5);
    assert_eq!(documented, actual.into_iter().map(str::to_owned).collect());
}

#[test]
fn dashboard_and_alerts_use_existing_metrics() {
    let text = text();
    let mut actual = BTreeSet::new();

    for (name, kind) in families(&text) {
        let suffixes: &[&str] = if kind == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        actual.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }

    for (file, content, min_count) in [("the dashboard", DASHBOARD, 15), ("the alerts", ALERTS, 8)]
    {
        let words = content.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let asked: BTreeSet<&str> = words
            .filter(|word| word.starts_with("hf_mem_probe_"))
            .collect();
        assert!(asked.len() >= min_count, "{file}: {asked:?}");

        for name in asked {
            assert!(
                actual.contains(name),
                "{name} is in {file} and not among {actual:?}"
            );
        }
    }
}

#[test]
fn every_panel_has_a_description() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut places = BTreeSet::new();

    for panel in panels {
        let description = panel["description"].as_str().unwrap_or_default();
        assert!(
            description.len() > 20 && description.ends_with('.'),
            "{}: {description}",
            panel["title"]
        );

        let place = &panel["gridPos"];
        places.insert((
            place["x"].as_u64(),
            place["y"].as_u64(),
            panel["id"].as_u64(),
        ));
    }

    assert_eq!(places.len(), panels.len());
    for name in [
        "hf_mem_probe_degraded",
        "hf_mem_probe_devices_unusable",
        "hf_mem_probe_device_xids_total",
    ] {
        let is_shown = panels
            .iter()
            .any(|panel| panel["targets"].to_string().contains(name));
        assert!(is_shown, "{name}");
    }
}
