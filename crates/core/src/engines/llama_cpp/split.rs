//! llama.cpp's layer split.
//!
//! Source: llama.cpp `src/llama-model.cpp` (`load_tensors`, `get_layer_buft_list`).

use std::ops::Range;

use crate::engines::{IllegalSplit, Offload, Split};

use super::weights::OnHost;

/// Divides layers `host..=layers` by `shares`, as `--tensor-split` does; the last is the output
/// layer.
///
/// Layer `i` goes to the first device whose cumulative share exceeds `(i - host) / (layers + 1 -
/// host)`. The first stage begins at 0: it owns the host's layers, but its device does not hold
/// them.
pub(crate) fn by_shares(layers: u32, host: u32, shares: &[u64]) -> Vec<Range<u32>> {
    let total: u128 = shares.iter().map(|share| u128::from(*share)).sum();
    let count = u128::from(layers.saturating_add(1).saturating_sub(host));
    let mut stages = Vec::new();
    let (mut start, mut cumulative) = (0, 0_u128);
    for share in shares {
        cumulative += u128::from(*share);
        // The first layer i with i / count >= cumulative / total.
        let end = (cumulative * count).div_ceil(total.max(1));
        let end = u32::try_from(end).unwrap_or(u32::MAX).saturating_add(host);
        stages.push(start..end);
        start = end;
    }

    stages
}

/// The layers on the device of each stage, as `-ts` takes them; `all` counts every layer.
pub(crate) fn shares(stages: &[Range<u32>], host_layers: u32, all: u32) -> Vec<u64> {
    let counts = stages.iter().enumerate().map(|(index, stage)| {
        let start = stage.start.max(host_layers);
        let end = if index + 1 == stages.len() {
            all
        } else {
            stage.end
        };
        u64::from(end.saturating_sub(start))
    });

    counts.collect()
}

/// The layers that `split` leaves on the host.
pub(crate) fn host_layers(split: &Split) -> u32 {
    match split.offload {
        Offload::Layers { layers } => layers,
        _ => 0,
    }
}

/// The splits over `devices` devices.
///
/// Shares count `uncounted` layers behind the decoder's: those for multi-token prediction.
pub(crate) fn splits(
    layers: u32,
    uncounted: u32,
    host: u32,
    devices: u32,
    shares: Option<&[u64]>,
) -> Result<Vec<Split>, IllegalSplit> {
    let equal;
    let shares = match shares {
        _ if devices == 0 => return Err(IllegalSplit("no device to split over".to_owned())),
        Some(shares) if shares.len() == devices as usize => shares,
        Some(shares) => {
            return Err(IllegalSplit(format!(
                "tensor_split has {} shares for {devices} devices",
                shares.len()
            )));
        }
        None if devices > layers.saturating_add(1) => {
            return Err(IllegalSplit(format!(
                "{layers} layers and the output layer do not fill {devices} devices"
            )));
        }
        None => {
            equal = vec![1; devices as usize];
            &equal
        }
    };

    let all = layers.saturating_add(uncounted);
    let mut stages = by_shares(all, host.min(layers.saturating_add(1)), shares);
    if uncounted > 0 {
        for stage in &mut stages {
            *stage = stage.start.min(layers)..stage.end.min(layers);
        }
        if let Some(last) = stages.last_mut() {
            last.end = layers.saturating_add(1);
        }
    }

    Ok(vec![Split {
        tensor: 1,
        stages,
        expert_parallel: false,
        offload: Offload::None,
    }])
}

/// Checks that llama.cpp can make `split` of `layers` layers.
pub(crate) fn check(split: &Split, layers: u32, has_experts: bool) -> Result<(), IllegalSplit> {
    if split.tensor != 1 {
        return illegal("llama.cpp splits by layers, not by tensors".to_owned());
    }

    if split.expert_parallel {
        return illegal("llama.cpp has no expert parallelism".to_owned());
    }

    let first = match split.offload {
        Offload::Layers { layers: host } if host > layers.saturating_add(1) => {
            return illegal(format!(
                "{host} layers on the host, of {layers} and the output layer"
            ));
        }
        Offload::Layers { layers: host } => host,
        Offload::Experts { .. } if !has_experts => {
            return illegal("there are no experts to keep on the host".to_owned());
        }
        Offload::None | Offload::Experts { .. } => 0,
        Offload::Components | Offload::Leaves => {
            return illegal("llama.cpp offloads layers and experts".to_owned());
        }
    };

    let mut expected = None;
    for stage in &split.stages {
        match expected {
            None if stage.start == 0 || stage.start == first => {}
            Some(end) if stage.start == end => {}
            _ => {
                return illegal(format!(
                    "stage {}..{} leaves a gap or an overlap",
                    stage.start, stage.end
                ));
            }
        }

        if stage.end < stage.start {
            return illegal(format!(
                "stage {}..{} runs backwards",
                stage.start, stage.end
            ));
        }

        expected = Some(stage.end);
    }

    match expected {
        Some(end) if end == layers || end == layers.saturating_add(1) => Ok(()),
        Some(end) => illegal(format!(
            "the stages end at {end}, not after the output layer {layers}"
        )),
        None => illegal("no stage at all".to_owned()),
    }
}

fn illegal(why: String) -> Result<(), IllegalSplit> {
    Err(IllegalSplit(why))
}

/// The layers and experts on the host: those of `split` and those that parameters always leave
/// there.
pub(crate) fn on_host(split: &Split, always: OnHost) -> OnHost {
    match split.offload {
        Offload::Layers { layers } => OnHost {
            layers: layers.max(always.layers),
            ..always
        },
        Offload::Experts { layers } => OnHost {
            experts: layers.max(always.experts),
            ..always
        },
        Offload::None | Offload::Components | Offload::Leaves => always,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(range: Range<u32>) -> Vec<Range<u32>> {
        std::iter::once(range).collect()
    }

    #[test]
    fn shares_divide_layers() {
        assert_eq!(by_shares(32, 0, &[1]), whole(0..33));
        assert_eq!(by_shares(32, 0, &[1, 1]), [0..17, 17..33]);
        assert_eq!(by_shares(60, 0, &[3, 1]), [0..46, 46..61]);
        assert_eq!(by_shares(2, 0, &[1, 0, 1]), [0..2, 2..2, 2..3]);
        assert_eq!(by_shares(32, 13, &[3, 1]), [0..28, 28..33]);
    }

    /// GLM-4.5-Air: 46 layers and one for multi-token prediction.
    #[test]
    fn shares_count_next_token_layers() {
        let stages = |uncounted| {
            splits(46, uncounted, 0, 2, Some(&[3, 1])).unwrap()[0]
                .stages
                .clone()
        };
        assert_eq!(stages(0), [0..36, 36..47]);
        assert_eq!(stages(1), [0..36, 36..47]);
        let equal = splits(24, 1, 0, 2, Some(&[3, 1])).unwrap();
        assert_eq!(equal[0].stages, [0..20, 20..25]);
        let without = splits(24, 0, 0, 2, Some(&[3, 1])).unwrap();
        assert_eq!(without[0].stages, [0..19, 19..25]);
    }

    #[test]
    fn only_complete_stages_are_legal() {
        let split_of = |stages: &[Range<u32>], offload| Split {
            tensor: 1,
            stages: stages.to_vec(),
            expert_parallel: false,
            offload,
        };

        assert!(check(&split_of(&[0..3, 3..5], Offload::None), 4, false).is_ok());
        assert!(check(&split_of(&[0..3, 4..5], Offload::None), 4, false).is_err());
        assert!(check(&split_of(&[0..3, 3..6], Offload::None), 4, false).is_err());

        assert!(
            check(
                &split_of(&whole(2..5), Offload::Layers { layers: 2 }),
                4,
                false
            )
            .is_ok()
        );

        assert!(
            check(
                &split_of(&whole(1..5), Offload::Layers { layers: 2 }),
                4,
                false
            )
            .is_err()
        );

        assert!(
            check(
                &split_of(&whole(0..5), Offload::Experts { layers: 2 }),
                4,
                false
            )
            .is_err()
        );

        assert!(check(&Split::tensor(2, 4), 4, false).is_err());
        assert!(splits(4, 0, 0, 6, None).is_err());
        assert!(splits(4, 0, 0, 2, Some(&[1, 2, 3])).is_err());
    }
}
