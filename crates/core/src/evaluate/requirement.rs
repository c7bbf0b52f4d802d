//! A placement's figures in the words of the answer.

use std::collections::BTreeMap;

use crate::bytes::Bytes;
use crate::engines::{Basis, Component, ComponentName, Interval};
use crate::model::Model;
use crate::placement::{AlternativeWay, Placement, RankShare, ResolvedWorkload};
use crate::report::answer::{
    Alternative, ComponentAnswer, DeviceShare, HostShare, IntervalAnswer, KvCacheAnswer,
    LaunchAnswer, PlacementAnswer, Requirement, Verdict,
};

/// The need of the whole placement, summed over its devices and the host.
pub(super) fn total(placement: &Placement, settled: &ResolvedWorkload) -> Requirement {
    let parts = placement
        .ranks
        .iter()
        .flat_map(|rank| rank.fixed.iter().chain(&rank.variable));
    let host = placement.host.iter().flat_map(|host| &host.components);
    let components = by_name(parts.chain(host));

    // Not the sum of the components: in a share, a part that turns out larger makes another
    // smaller.
    let held: Interval = placement.ranks.iter().map(|rank| rank.held).sum();
    Requirement {
        total: Some(IntervalAnswer {
            low_bytes: held.low.get(),
            likely_bytes: held.likely.get(),
            high_bytes: held.high.get(),
        }),
        components,
        kv_cache: KvCacheAnswer {
            bytes_per_token: settled.kv_bytes_per_token.get(),
            state_bytes_per_sequence: settled.state_bytes_per_sequence.get(),
            dtype: settled.kv_cache_dtype.clone(),
        },
    }
}

/// What is known of a model whose cache is not: its stored weights.
pub(super) fn weights_only(model: &Model) -> Requirement {
    let bytes = model.inventory.bytes();
    let detail = format!(
        "{} tensors in {} files",
        model.inventory.tensors(),
        model.weight_files
    );

    let weights = Component::exact(ComponentName::Weights, bytes, Basis::Exact, detail);
    Requirement {
        total: None,
        components: by_name(std::iter::once(&weights)),
        kv_cache: KvCacheAnswer::default(),
    }
}

/// A placement.
pub(super) fn placement(placement: &Placement) -> PlacementAnswer {
    let launch = &placement.launch;
    PlacementAnswer {
        strategy: placement.strategy.into(),
        tensor_parallel: placement.split.tensor,
        pipeline_parallel: u32::try_from(placement.split.stages.len()).unwrap_or(u32::MAX),
        devices: placement.ranks.iter().map(share).collect(),
        host: placement.host.as_ref().map(|host| HostShare {
            available_bytes: host.available.map(Bytes::get),
            required_bytes: host.required.high.get(),
            components: by_name(host.components.iter()),
        }),
        max_context: placement.max_context,
        max_sequences: placement.max_sequences,
        kv_cache_tokens: placement.capacity.map(|capacity| capacity.tokens),
        kv_cache_low_tokens: placement.capacity.map(|capacity| capacity.low_tokens),
        max_concurrency: placement
            .capacity
            .map(|capacity| hundredths(capacity.concurrency_hundredths)),
        // A line to paste is given only for what is expected to work.
        launch: (placement.verdict <= Verdict::Tight && !launch.args.is_empty()).then(|| {
            LaunchAnswer {
                env: launch.env.clone(),
                args: launch.args.clone(),
            }
        }),
    }
}

/// Hundredths as a decimal.
#[expect(
    clippy::cast_precision_loss,
    reason = "two digits of a count of sequences"
)]
fn hundredths(count: u64) -> f64 {
    count as f64 / 100.0
}

fn share(rank: &RankShare) -> DeviceShare {
    DeviceShare {
        uuid: rank.device.uuid.clone(),
        index: rank.device.index,
        name: rank.device.name.clone(),
        total_bytes: rank.device.total_bytes.get(),
        free_bytes: rank.free.map(Bytes::get),
        leased_bytes: rank.leased.get(),
        available_bytes: Some(rank.available.get()),
        required_bytes: rank.required.high.get(),
        short_by_bytes: Some(rank.short_by.get()),
        takes_bytes: rank.takes.map(Bytes::get),
        layers: (rank.layers.start, rank.layers.end),
        components: by_name(rank.fixed.iter().chain(&rank.variable)),
    }
}

/// Another way.
pub(super) fn alternative(way: &AlternativeWay) -> Alternative {
    Alternative {
        strategy: way.strategy.into(),
        tensor_parallel: way.tensor,
        pipeline_parallel: way.pipeline,
        devices: way.devices.clone(),
        verdict: way.verdict,
        reason: way.reason.clone(),
        short_by_bytes: way.short_by.map(Bytes::get),
    }
}

/// One line for each name, so that a program can look one up: bytes summed, the softest basis, each
/// detail once.
fn by_name<'c>(components: impl Iterator<Item = &'c Component>) -> Vec<ComponentAnswer> {
    let mut lines: BTreeMap<ComponentName, (Interval, Basis, Vec<&str>)> = BTreeMap::new();
    for part in components {
        let line = lines
            .entry(part.name)
            .or_insert((Interval::default(), part.basis, Vec::new()));
        line.0 = line.0.plus(part.bytes);
        line.1 = line.1.max(part.basis);
        if !part.detail.is_empty() && !line.2.contains(&part.detail.as_str()) {
            line.2.push(&part.detail);
        }
    }

    let answer =
        |(name, (bytes, basis, details)): (ComponentName, (Interval, Basis, Vec<&str>))| {
            ComponentAnswer {
                name,
                low_bytes: bytes.low.get(),
                likely_bytes: bytes.likely.get(),
                high_bytes: bytes.high.get(),
                basis,
                detail: details.join("; "),
            }
        };

    lines.into_iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_name_are_summed_and_take_the_softest_basis() {
        let parts = [
            Component::exact(
                ComponentName::Weights,
                Bytes::new(7),
                Basis::Exact,
                "as stored",
            ),
            Component::exact(
                ComponentName::Weights,
                Bytes::new(2),
                Basis::Formula,
                "a table",
            ),
            Component::exact(
                ComponentName::Weights,
                Bytes::new(7),
                Basis::Exact,
                "as stored",
            ),
        ];
        let lines = by_name(parts.iter());
        assert_eq!(lines.len(), 1);

        assert_eq!(
            (lines[0].likely_bytes, lines[0].basis),
            (16, Basis::Formula)
        );
        assert_eq!(lines[0].detail, "as stored; a table");
    }
}
