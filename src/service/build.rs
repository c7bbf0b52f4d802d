//! From the configuration to what the path goes by.

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

/// The longest file of profiles; all embedded ones together have some 50 KB.
const MAX_PROFILES_BYTES: u64 = 4 << 20;

/// Puts the site's default engine into `question`, where that is one for such models and none is
/// named.
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

/// Engines with the site's constants, and the site's preference among equally good ways.
pub fn rules(config: &Config) -> Result<Rules, Problem> {
    let mut tables = Vec::new();
    if let Some(path) = &config.engines.profiles_file {
        tables.push(read(path)?);
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

fn read(path: &Path) -> Result<toml::Table, Problem> {
    let bad = |why: String| {
        Problem::new(
            Reason::BadConfiguration,
            format!("{}: {why}", path.display()),
        )
    };

    let file = path.to_owned();
    let read = files::try_wait(path, move |disk| disk.read_text(&file, MAX_PROFILES_BYTES));
    let text = read.map_err(|error| bad(error.to_string()))?;

    text.parse()
        .map_err(|error: toml::de::Error| bad(error.message().to_owned()))
}
