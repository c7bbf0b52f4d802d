//! Builds the rules of planning from the configuration.

use std::path::Path;

use hf_mem_core::engines::{Engines, releases};
use hf_mem_core::evaluate;
use hf_mem_core::evaluate::Rules;
use hf_mem_core::model::Model;
use hf_mem_core::placement::{Packing, Policy};
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Problem, Question};

use crate::config::{self, Config};
use crate::files;

/// The largest file of profiles. All embedded profiles together have some 50 KB.
const MAX_PROFILES_BYTES: u64 = 4 << 20;

/// Puts the site's default engine into `question` if it names none and the default applies to
/// models such as `model`.
pub fn complete(config: &Config, question: &mut Question, model: &Model) {
    if question.engine.name.is_some() || !evaluate::defaults_to_vllm(model) {
        return;
    }

    if let Some(spec) = &config.engines.default_engine {
        question.engine.name = Some(spec.name.clone());
        question.engine.version = question
            .engine
            .version
            .take()
            .or_else(|| spec.version.clone());
    }
}

/// Returns the engines with the site's constants, and the site's preference among equally good
/// placements.
pub fn rules(config: &Config) -> Result<Rules, Problem> {
    let mut tables = Vec::new();
    if let Some(path) = &config.engines.profiles_file {
        tables.push(read_profiles(path)?);
    }

    tables.extend(config.engines.profiles.clone());
    let engines = Engines::with_constants(&tables).map_err(|error| {
        Problem::new(
            Reason::BadConfiguration,
            format!("[engines] profiles: {error}"),
        )
    })?;

    if let Some(spec) = &config.engines.default_engine {
        let known = engines.by_name(&spec.name);
        known
            .and_then(|engine| releases::confidence(engine.name(), spec.version.as_ref()))
            .map_err(|error| {
                Problem::new(
                    Reason::BadConfiguration,
                    format!("[engines] default_engine: {error}"),
                )
            })?;
    }

    let packing = match config.placement.policy {
        config::Policy::Pack => Packing::Pack,
        config::Policy::Spread => Packing::Spread,
    };

    Ok(Rules {
        engines,
        policy: Policy {
            packing,
            prefer: config.placement.prefer.clone(),
        },
    })
}

fn read_profiles(path: &Path) -> Result<toml::Table, Problem> {
    let file = path.to_owned();
    files::try_wait(path, move |disk| disk.read_text(&file, MAX_PROFILES_BYTES))
        .map_err(|error| error.to_string())
        .and_then(|text| {
            text.parse()
                .map_err(|error: toml::de::Error| error.message().to_owned())
        })
        .map_err(|why| {
            Problem::new(
                Reason::BadConfiguration,
                format!("{}: {why}", path.display()),
            )
        })
}
