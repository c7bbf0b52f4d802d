//! Models with several named components.
//!
//! They are diffusers pipelines (`model_index.json`) and sentence-transformers models
//! (`modules.json`).

use serde_json::Value;

use super::{Choice, ChoiceError, Component, Documents, Listing, folder};
use crate::model::Format;

/// Maximum number of components in one document. Published pipelines have at most a dozen.
const MAX_COMPONENTS: usize = 64;

/// Returns the components of either document in its order, without those at the root.
pub(super) fn components(documents: &Documents) -> Vec<Component> {
    let mut components = pipeline_components(documents).unwrap_or_default();
    components.extend(
        modules(documents)
            .into_iter()
            .filter(|module| !module.name.is_empty()),
    );

    components
}

/// Chooses the weights of every component in `model_index.json`, and none at the root.
pub(super) fn diffusers(listing: &Listing, documents: &Documents) -> Result<Choice, ChoiceError> {
    let components = pipeline_components(documents)?;
    let mut choice = Choice::new(Format::Diffusers, Vec::new(), Vec::new());

    for component in components {
        match folder::choose(listing, documents, &component.name)? {
            Some(found) => {
                choice.notes.extend(
                    found
                        .notes
                        .into_iter()
                        .map(|note| format!("{}: {note}", component.name)),
                );
                choice.files.extend(found.files);
            }
            None if has_no_weights(&component.class) => {}
            None => {
                choice.notes.push(format!(
                    "{} ({}) has no weights in this repository",
                    component.name, component.class
                ));
            }
        }

        choice.components.push(component);
    }

    if choice.files.is_empty() {
        return Err(ChoiceError::NoWeights(
            " in the folders that model_index.json names".into(),
        ));
    }

    Ok(choice)
}

/// Chooses the weights of a sentence-transformers model: the transformer and the modules with
/// weights (Dense).
///
/// Returns `None` if there are no weights.
pub(super) fn sentence_transformers(
    listing: &Listing,
    documents: &Documents,
) -> Result<Option<Choice>, ChoiceError> {
    let mut choice = Choice::new(Format::Safetensors, Vec::new(), Vec::new());
    let mut modules = modules(documents);

    // The transformer is at the root even if modules.json states an empty folder for it.
    if !modules.iter().any(|module| module.name.is_empty()) {
        modules.insert(
            0,
            Component {
                name: String::new(),
                class: "transformers".into(),
            },
        );
    }

    for module in modules {
        let Some(found) = folder::choose(listing, documents, &module.name)? else {
            continue;
        };

        if module.name.is_empty() {
            choice.format = found.format;
        } else {
            choice.components.push(module);
        }

        choice.notes.extend(found.notes);
        choice.files.extend(found.files);
    }

    Ok((!choice.files.is_empty()).then_some(choice))
}

/// Parses entries like `"transformer": ["diffusers", "FluxTransformer2DModel"]`.
///
/// An absent component is `[null, null]`.
fn pipeline_components(documents: &Documents) -> Result<Vec<Component>, ChoiceError> {
    let path = "model_index.json";
    let Some(index) = documents.json.get(path) else {
        return Ok(Vec::new());
    };

    let invalid_index = |why: &str| ChoiceError::BadDocument {
        path: path.into(),
        why: why.into(),
    };

    let object = index
        .as_object()
        .ok_or_else(|| invalid_index("it is not a JSON object"))?;
    if object.len() > MAX_COMPONENTS {
        return Err(invalid_index(
            "it names more components than any pipeline has",
        ));
    }

    Ok(object
        .iter()
        .filter_map(|(name, value)| parse_component(name, value))
        .collect())
}

fn parse_component(name: &str, value: &Value) -> Option<Component> {
    let [library, class] = value.as_array()?.as_slice() else {
        return None;
    };

    let class = format!("{}.{}", library.as_str()?, class.as_str()?);
    let is_folder =
        !name.is_empty() && !name.starts_with('_') && !name.contains(['/', '\\']) && name != "..";
    is_folder.then(|| Component {
        name: name.to_owned(),
        class,
    })
}

/// Parses entries like `{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}`.
fn modules(documents: &Documents) -> Vec<Component> {
    let Some(modules) = documents.json.get("modules.json").and_then(Value::as_array) else {
        return Vec::new();
    };

    modules
        .iter()
        .take(MAX_COMPONENTS)
        .filter_map(parse_module)
        .collect()
}

/// Whether `modules.json` asks for the pooling of hidden states, as embedders do.
pub(crate) fn asks_for_pooling(modules: &Value) -> bool {
    let entries = modules.as_array().into_iter().flatten();
    entries
        .filter_map(|entry| entry.get("type")?.as_str())
        .any(|class| class.ends_with("Pooling"))
}

fn parse_module(module: &Value) -> Option<Component> {
    let name = module
        .get("path")?
        .as_str()?
        .trim_end_matches('/')
        .to_owned();
    let class = module
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();

    (!name.split('/').any(|part| part == "..")).then_some(Component { name, class })
}

/// Returns whether a component never has weights, such as a scheduler or tokenizer.
fn has_no_weights(class: &str) -> bool {
    [
        "Scheduler",
        "Tokenizer",
        "TokenizerFast",
        "Processor",
        "Extractor",
    ]
    .iter()
    .any(|kind| class.ends_with(kind))
}
