//! The `llama-server` command that matches an answer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::draft::LlamaDraft;
use super::flash_kernels::AttentionMode;
use super::prepared::LlamaCppPrepared;
use super::split::{on_host, shares};
use crate::engines::{Launch, LaunchPlan, Offload};
use crate::model::{Dtype, Identity};

/// Whether a name is a path on this host instead of a repository.
fn is_local(repo: &str) -> bool {
    repo.starts_with(['/', '.', '~'])
}

/// Arguments for the model's file: a path, or a repository and its file.
///
/// `None` if the file is in another program's folder.
fn source(identity: &Identity) -> Option<Vec<String>> {
    if identity.repo.starts_with("ollama:") || identity.repo.starts_with("lmstudio:") {
        return None;
    }

    let is_file = Path::new(&identity.repo)
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));

    Some(match &identity.file {
        _ if is_file => vec!["-m".to_owned(), identity.repo.clone()],
        Some(file) if is_local(&identity.repo) => {
            vec![
                "-m".to_owned(),
                format!("{}/{file}", identity.repo.trim_end_matches('/')),
            ]
        }
        Some(file) => vec![
            "-hf".to_owned(),
            identity.repo.clone(),
            "-hff".to_owned(),
            file.clone(),
        ],
        None => vec!["-hf".to_owned(), identity.repo.clone()],
    })
}

/// Arguments for the draft's file; `None` if it is in another program's folder.
fn draft_source(prepared: &LlamaCppPrepared<'_>) -> Option<Vec<String>> {
    let Some(LlamaDraft::Model(draft)) = &prepared.draft else {
        return Some(Vec::new());
    };

    let arguments = source(draft.prepared().identity())?;
    let renamed = arguments.into_iter().map(|argument| match &*argument {
        "-m" | "-hff" => "-md".to_owned(),
        "-hf" => "-hfd".to_owned(),
        _ => argument,
    });
    Some(renamed.collect())
}

/// The switches that follow from the parameters.
fn switches(prepared: &LlamaCppPrepared<'_>) -> impl Iterator<Item = &'static str> {
    let parameters = &prepared.parameters;
    let switches = [
        (prepared.effective().unified, "--kv-unified"),
        (parameters.no_mmproj, "--no-mmproj"),
        (parameters.no_mmproj_offload, "--no-mmproj-offload"),
        (prepared.effective().swa_full, "--swa-full"),
        (!prepared.cache_on_device(), "--no-kv-offload"),
    ];

    switches
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| name)
}

/// The layers on the device of each stage, as `-ts` takes them.
fn tensor_split(stages: &[Range<u32>], host_layers: u32, all: u32) -> String {
    let counts = shares(stages, host_layers, all).into_iter();
    counts
        .map(|count| count.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

/// Environment and arguments for `plan`.
pub(crate) fn launch(prepared: &LlamaCppPrepared<'_>, plan: &LaunchPlan<'_>) -> Launch {
    let takes = vec![None; plan.devices.len()];
    let Some(source) = source(prepared.identity()).zip(draft_source(prepared)) else {
        return Launch {
            takes,
            ..Launch::default()
        };
    };

    let mut args = vec!["llama-server".to_owned()];
    args.extend(source.0);
    args.extend(source.1);
    let mut add_flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    let effective = prepared.effective();
    add_flag("-c", effective.total_context(plan.workload).to_string());
    add_flag("-np", effective.slots(plan.workload).to_string());
    add_flag("-b", effective.n_batch.to_string());
    add_flag("-ub", effective.n_ubatch.to_string());

    add_flag(
        "-fa",
        match effective.attention {
            AttentionMode::Flash | AttentionMode::FlashOnHost => "on",
            AttentionMode::Scores => "off",
            // `off` would also change the cache.
            AttentionMode::ScoresAfterFlash => "auto",
        }
        .to_owned(),
    );
    if effective.keys != Dtype::F16 {
        add_flag("-ctk", effective.keys.name().to_ascii_lowercase());
    }

    if effective.values != Dtype::F16 {
        add_flag("-ctv", effective.values.name().to_ascii_lowercase());
    }

    let host = on_host(plan.split, prepared.always_on_host());
    let all = prepared.all_layers();
    add_flag("-ngl", all.saturating_sub(host.layers).to_string());

    if plan.split.stages.len() > 1 {
        add_flag("-ts", tensor_split(&plan.split.stages, host.layers, all));
    }

    if host.experts > 0 && matches!(plan.split.offload, Offload::Experts { .. } | Offload::None) {
        add_flag(
            "--n-cpu-moe",
            host.experts.min(prepared.layers()).to_string(),
        );
    }
    // With a repository, `-hf` loads the projector itself.
    if let Some(projector) = prepared.projector()
        && is_local(&prepared.identity().repo)
    {
        add_flag(
            "--mmproj",
            format!(
                "{}/{projector}",
                prepared.identity().repo.trim_end_matches('/')
            ),
        );
    }

    if plan.split.stages.len() == 1 && prepared.parameters.single {
        add_flag("-sm", "none".to_owned());
    }
    if let Some(mib) = prepared.parameters.cache_ram {
        add_flag("--cache-ram", mib.to_string());
    }

    for (name, value) in prepared.parameters.draft.flags() {
        add_flag(&name, value);
    }

    // `--fit` must not change the planned values.
    add_flag("--fit", "off".to_owned());

    args.extend(switches(prepared).map(str::to_owned));

    let devices = plan
        .devices
        .iter()
        .map(|device| device.facts.uuid.as_str())
        .collect::<Vec<_>>()
        .join(",");
    let env = BTreeMap::from([
        ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()),
        ("CUDA_VISIBLE_DEVICES".to_owned(), devices),
    ]);

    Launch { env, args, takes }
}
