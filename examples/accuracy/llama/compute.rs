//! Compute buffers of measured rows.

use hf_mem_core::engines::{ComponentName, Offload, PreparedEngine, Split};
use hf_mem_core::model::{Architecture, Model};

use super::parameters::device;
use super::rows::LlamaLogRow;
use super::total;
use crate::score::Scores;

/// Logs print hundredths of a MiB.
const ROUNDING_GIB: f64 = 0.01 / 1024.0;

/// Compares the compute buffers with ours, if it is known which layers are on the devices.
pub(super) fn compute(
    row: &LlamaLogRow,
    label: &str,
    model: &Model,
    prepared: &dyn PreparedEngine,
    split: &Split,
    scores: &mut Scores,
) {
    let buffers = row.buffers("compute_buffer_mib");
    if buffers.is_empty() {
        return;
    }

    if let Some(why) = skip_reason(row, &buffers) {
        return scores.skip(why, label);
    }

    let on_devices: Vec<&(&str, f64)> =
        buffers.iter().filter(|(name, _)| is_device(name)).collect();

    let whole = row.number("layers_offloaded") == row.number("layers_total");
    match on_devices.as_slice() {
        [] if buffers.len() == 1 => {
            let cpu = ("compute buffer, CPU", label, buffers[0].1);
            first_device(cpu, prepared, split, scores);
        }
        [(_, measured)] if whole => {
            let one_device = ("compute buffer, one device", label, *measured);
            first_device(one_device, prepared, split, scores);
        }
        [(_, measured)] => {
            if model.inventory.classes.len() < 2 {
                return scores.skip(
                    "compute: layers on the host, whose tensors are not in the corpus",
                    label,
                );
            }

            let split = Split {
                offload: Offload::Layers {
                    layers: host_layers(row, model),
                },
                ..split.clone()
            };
            let partial = ("compute buffer, layers on the host", label, *measured);
            first_device(partial, prepared, &split, scores);
        }
        several if whole => several_devices(label, several, prepared, scores),
        _ => scores.skip("compute: several devices and layers on the host", label),
    }
}

/// Why a row's compute buffers cannot be compared.
fn skip_reason(row: &LlamaLogRow, buffers: &[(&str, f64)]) -> Option<&'static str> {
    if buffers.iter().any(|(name, _)| name.starts_with("Metal")) {
        return Some("compute: Metal keeps no FP16 copies of a quantized cache");
    }

    if row.text("engine") == "ik_llama.cpp" {
        return Some("compute: the fork ik_llama.cpp has its own graphs");
    }

    let model_buffers = row.buffers("model_buffer_mib");
    if model_buffers
        .iter()
        .any(|(name, _)| name.contains("_Split"))
    {
        return Some("compute: split by rows");
    }

    let on_host: f64 = model_buffers
        .iter()
        .filter(|(name, _)| name.contains("CPU"))
        .map(|(_, mib)| mib)
        .sum();
    let everything = row.sum("model_buffer_mib").unwrap_or(0.0);
    if row.number("layers_offloaded").is_some()
        && row.number("layers_offloaded") == row.number("layers_total")
        && on_host > 0.4 * everything
    {
        return Some("compute: experts on the host, whose tensors are not in the corpus");
    }

    if !row.0["tensor_overrides"].is_null() || row.notes().contains("override-tensor") {
        return Some("compute: single tensors were moved by hand");
    }

    None
}

fn is_device(name: &str) -> bool {
    let devices = ["CUDA", "ROCm", "Vulkan", "Metal", "SYCL", "CANN", "GPU"];
    !name.contains("Host") && devices.iter().any(|device| name.starts_with(device))
}

/// Layers on the host, with the output layer as the last.
fn host_layers(row: &LlamaLogRow, model: &Model) -> u32 {
    let layers = model
        .architecture
        .as_ref()
        .map_or(0, Architecture::layer_count);
    let on_device = row
        .number("layers_offloaded")
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(0);

    (layers + 1).saturating_sub(on_device)
}

/// Compares one measured buffer in MiB with that of rank 0.
fn first_device(
    (component, label, measured): (&str, &str, f64),
    prepared: &dyn PreparedEngine,
    split: &Split,
    scores: &mut Scores,
) {
    let Ok(parts) = prepared.variable(split, 0, &device(), prepared.workload()) else {
        return;
    };

    scores.gib(
        component,
        label,
        measured / 1024.0,
        total(&parts, ComponentName::Activations),
        ROUNDING_GIB,
    );
}

/// Compares the buffers of several devices.
///
/// Equal shares are near enough, because the buffer hardly depends on the layers of a device.
pub(super) fn several_devices(
    label: &str,
    buffers: &[&(&str, f64)],
    prepared: &dyn PreparedEngine,
    scores: &mut Scores,
) {
    let count = u32::try_from(buffers.len()).unwrap_or(u32::MAX);
    let Ok(mut splits) = prepared.splits(count) else {
        return;
    };

    let split = splits.remove(0);
    for (rank, (name, measured)) in buffers.iter().enumerate() {
        let Ok(parts) = prepared.variable(&split, rank, &device(), prepared.workload()) else {
            return;
        };

        let ours = total(&parts, ComponentName::Activations);
        scores.gib(
            "compute buffer, several devices",
            &format!("{label} {name}"),
            measured / 1024.0,
            ours,
            ROUNDING_GIB,
        );
    }
}
