//! The figures of a placement, as the answer states them.

use std::collections::BTreeMap;

use crate::bytes::Bytes;
use crate::device::declared;
use crate::engines::{Basis, Component, ComponentName, Interval};
use crate::model::Model;
use crate::placement::{AlternativePlacement, Placement, RankShare, ResolvedWorkload};
use crate::report::answer::{
    Alternative, ComponentAnswer, DeviceShare, HostShare, IntervalAnswer, KvCacheAnswer,
    LaunchAnswer, PlacementAnswer, Requirement, Verdict,
};

/// Returns the need of the whole placement, summed over its devices and the host.
pub(super) fn total(placement: &Placement, settled: &ResolvedWorkload) -> Requirement {
    let parts = placement
        .ranks
        .iter()
        .flat_map(|rank| rank.fixed.iter().chain(&rank.variable));
    let host = placement.host.iter().flat_map(|host| &host.components);
    let components = by_name(parts.chain(host));

    // Not the sum of the components: in a share, a larger part makes another one smaller.
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

/// Returns the stored weights of a model whose other needs are unknown.
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

/// Returns the placement of an answer.
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
        // Only a placement that is expected to work gets a launch line.
        launch: (placement.verdict <= Verdict::Tight && !launch.args.is_empty()).then(|| {
            LaunchAnswer {
                env: environment(placement),
                args: launch.args.clone(),
            }
        }),
    }
}

/// Returns the variables of the launch line.
///
/// A declared device has no UUID that a driver would know, so no variable selects it.
fn environment(placement: &Placement) -> BTreeMap<String, String> {
    let mut variables = placement.launch.env.clone();
    let is_declared = placement
        .ranks
        .iter()
        .any(|rank| declared::is_declared(&rank.device.uuid));
    if is_declared {
        variables.remove("CUDA_VISIBLE_DEVICES");
        variables.remove("CUDA_DEVICE_ORDER");
    }

    variables
}

/// Converts hundredths to a decimal.
#[expect(
    clippy::cast_precision_loss,
    reason = "two digits of a count of sequences"
)]
fn hundredths(count: u64) -> f64 {
    count as f64 / 100.0
}

/// Returns the share of one device.
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

/// Returns an alternative of an answer.
pub(super) fn alternative(alternative: &AlternativePlacement) -> Alternative {
    Alternative {
        strategy: alternative.strategy.into(),
        tensor_parallel: alternative.tensor,
        pipeline_parallel: alternative.pipeline,
        devices: alternative.devices.clone(),
        verdict: alternative.verdict,
        reason: alternative.why.clone(),
        short_by_bytes: alternative.short_by.map(Bytes::get),
    }
}

/// Merges the components of each name, so that a program can look a name up: the sum of bytes, the
/// weakest basis, each detail once.
fn by_name<'c>(components: impl Iterator<Item = &'c Component>) -> Vec<ComponentAnswer> {
    let mut merged: BTreeMap<ComponentName, (Interval, Basis, Vec<&str>)> = BTreeMap::new();
    for part in components {
        let (bytes, basis, details) =
            merged
                .entry(part.name)
                .or_insert((Interval::default(), part.basis, Vec::new()));
        *bytes = bytes.plus(part.bytes);
        *basis = (*basis).max(part.basis);
        if !part.detail.is_empty() && !details.contains(&part.detail.as_str()) {
            details.push(&part.detail);
        }
    }

    merged
        .into_iter()
        .map(|(name, (bytes, basis, details))| ComponentAnswer {
            name,
            low_bytes: bytes.low.get(),
            likely_bytes: bytes.likely.get(),
            high_bytes: bytes.high.get(),
            basis,
            detail: details.join("; "),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_of_one_name_are_merged() {
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
