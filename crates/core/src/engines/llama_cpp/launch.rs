//! The command that makes llama-server do what was answered.

use std::collections::BTreeMap;
use std::path::Path;

use super::prepared::Ready;
use super::split::on_host;
use crate::engines::{Launch, LaunchPlan, Offload};
use crate::model::Dtype;
use crate::model::Identity;

/// Whether a name is a path on this host, not a repository.
fn is_local(repo: &str) -> bool {
    repo.starts_with(['/', '.', '~'])
}

/// Where the file comes from: a path, or a repository and its file; `None` where it lies in another
/// program's folder.
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

/// Environment and arguments for `plan`.
pub(crate) fn launch(ready: &Ready<'_>, plan: &LaunchPlan<'_>) -> Launch {
    let takes = vec![None; plan.devices.len()];
    let Some(source) = source(ready.identity()) else {
        return Launch {
            takes,
            ..Launch::default()
        };
    };

    let mut args = vec!["llama-server".to_owned()];
    args.extend(source);
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    let settled = ready.settled();
    flag("-c", settled.total_context(plan.workload).to_string());
    flag("-np", settled.slots(plan.workload).to_string());
    flag("-b", settled.n_batch.to_string());
    flag("-ub", settled.n_ubatch.to_string());

    flag(
        "-fa",
        if settled.flash_attention { "on" } else { "off" }.to_owned(),
    );
    if settled.keys != Dtype::F16 {
        flag("-ctk", settled.keys.name().to_ascii_lowercase());
    }

    if settled.values != Dtype::F16 {
        flag("-ctv", settled.values.name().to_ascii_lowercase());
    }

    let host = on_host(plan.split, ready.always_on_host());
    let all = ready
        .layers()
        .saturating_add(ready.next_token_layers())
        .saturating_add(1);
    flag("-ngl", all.saturating_sub(host.layers).to_string());

    if plan.split.stages.len() > 1 {
        let last = plan.split.stages.len() - 1;
        let count = |(index, stage): (usize, &std::ops::Range<u32>)| {
            let start = stage.start.max(host.layers);
            let behind = if index == last { all } else { stage.end };
            behind.saturating_sub(start).to_string()
        };

        flag(
            "-ts",
            plan.split
                .stages
                .iter()
                .enumerate()
                .map(count)
                .collect::<Vec<_>>()
                .join(","),
        );
    }

    if host.experts > 0 && matches!(plan.split.offload, Offload::Experts { .. } | Offload::None) {
        flag("--n-cpu-moe", host.experts.min(ready.layers()).to_string());
    }
    // From a repository `-hf` loads the projector by itself.
    if let Some(projector) = ready.projector()
        && is_local(&ready.identity().repo)
    {
        flag(
            "--mmproj",
            format!(
                "{}/{projector}",
                ready.identity().repo.trim_end_matches('/')
            ),
        );
    }

    if plan.split.stages.len() == 1 && ready.parameters.single {
        flag("-sm", "none".to_owned());
    }
    // What was worked out here is not to be changed by --fit.
    flag("--fit", "off".to_owned());

    if settled.unified {
        args.push("--kv-unified".to_owned());
    }

    if ready.parameters.no_mmproj {
        args.push("--no-mmproj".to_owned());
    }

    if ready.parameters.no_mmproj_offload {
        args.push("--no-mmproj-offload".to_owned());
    }

    if settled.swa_full {
        args.push("--swa-full".to_owned());
    }

    if !ready.cache_on_device() {
        args.push("--no-kv-offload".to_owned());
    }

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
