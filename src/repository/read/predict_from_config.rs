//! Predicts all tensors from the configuration of a known architecture, without reading a header.
//!
//! The prediction is accepted if everything else known about the repository agrees to the byte:
//!
//! 1. names: if there is an index, it names exactly the tensors of the blueprint;
//! 2. lengths: each file, less its predicted data, leaves a header of exactly the length that such
//!    tensors need;
//! 3. the index's `total_size`;
//! 4. elements by type: the Hub counts them from the headers themselves, and exactly one assignment
//!    of types to the predicted tensors gives these counts.
//!
//! A certain kind of file could still differ. Its tensors have other shapes than its configuration
//! says, but every type's elements, the file's length and the digits in its header are the same. No
//! engine could load such a file by its configuration, and the bytes of each type are right all the
//! same. In an encoder of few layers, the names may also begin with the model's own or not: the
//! shapes are the same.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::model::blueprint::{self, Blueprint, ExpectedTensor, Role, TensorList};
use hf_mem_core::model::gguf::TablePlace;
use hf_mem_core::model::metadata::Evidence;
use hf_mem_core::model::tensors::{InventoryBuilder, Storage};
use hf_mem_core::model::weight_files::{Index, WeightFile, WeightMap};
use hf_mem_core::model::{Dtype, Inventory};
use serde_json::Value;

use super::ReadWeights;
use super::coverage::Coverage;
use super::infer_headers::PredictedFile;

/// Predicts the weights in `files` from `config`. `hub_totals` counts exactly these files. Returns
/// `None` if anything known contradicts the prediction.
pub(super) fn predict(
    files: &[WeightFile],
    index: Option<&Index>,
    config: &Value,
    hub_totals: &BTreeMap<String, u64>,
) -> Option<ReadWeights> {
    let predicted = Blueprint::from_config(config)
        .and_then(|blueprint| by_blueprint(&blueprint, files, index, hub_totals));
    predicted.or_else(|| by_lists(blueprint::tensor_lists(config), files, index, hub_totals))
}

/// Returns the weights in `files` if they match one of `lists`. Lists that the totals and lengths
/// cannot distinguish may differ in names only. If they differ in shapes or types, returns `None`.
fn by_lists(
    lists: Vec<TensorList>,
    files: &[WeightFile],
    index: Option<&Index>,
    hub_totals: &BTreeMap<String, u64>,
) -> Option<ReadWeights> {
    let mut matching = lists
        .into_iter()
        .filter_map(|list| by_list(list, files, index, hub_totals));
    let first = matching.next()?;
    let shapes = shapes(&first.inventory);

    matching
        .all(|other| self::shapes(&other.inventory) == shapes)
        .then_some(first)
}

/// Returns the number of tensors of each type and shape.
fn shapes(inventory: &Inventory) -> BTreeMap<(&Storage, &[u64]), u64> {
    let mut counts = BTreeMap::new();
    for class in &inventory.classes {
        *counts.entry((&class.storage, &*class.shape)).or_default() += class.count;
    }
    counts
}

/// Returns the weights in `files` if they hold exactly the tensors of `list`.
fn by_list(
    list: TensorList,
    files: &[WeightFile],
    index: Option<&Index>,
    hub_totals: &BTreeMap<String, u64>,
) -> Option<ReadWeights> {
    let tensors: BTreeMap<String, ExpectedTensor> = list.into_iter().collect();
    let tensor_of = |name: &str| tensors.get(name).cloned();

    match (index, files) {
        (Some(index), _) => {
            let all_named = index.weight_map.len() == tensors.len();
            all_named.then(|| {
                check_prediction(
                    &tensor_of,
                    files,
                    &index.weight_map,
                    hub_totals,
                    Some(index.total_bytes?),
                )
            })?
        }
        (None, [file]) => {
            let named = WeightMap::collect(
                tensors
                    .keys()
                    .map(|name| (name.as_str(), file.path.as_str())),
            )
            .ok()?;
            check_prediction(&tensor_of, files, &named, hub_totals, None)
        }
        (None, _) => None,
    }
}

fn by_blueprint(
    blueprint: &Blueprint,
    files: &[WeightFile],
    index: Option<&Index>,
    hub_totals: &BTreeMap<String, u64>,
) -> Option<ReadWeights> {
    let check_names = |named: &WeightMap, total_bytes: Option<u64>| {
        let tensor_of = |name: &str| blueprint.tensor(name, |other| named.contains(other));
        check_prediction(&tensor_of, files, named, hub_totals, total_bytes)
    };

    match (index, files) {
        (Some(index), _) => check_names(&index.weight_map, Some(index.total_bytes?)),
        // Without an index: the whole model with or without a separate output head, or the decoder
        // alone.
        (None, [file]) => [("model.", true), ("model.", false), ("", false)]
            .into_iter()
            .find_map(|(prefix, head)| {
                let names = blueprint.names(prefix, head)?;
                let named = WeightMap::collect(
                    names.iter().map(|name| (name.as_str(), file.path.as_str())),
                )
                .ok()?;
                check_names(&named, None)
            }),
        _ => None,
    }
}

fn check_prediction(
    tensor_of: &dyn Fn(&str) -> Option<ExpectedTensor>,
    files: &[WeightFile],
    named: &WeightMap,
    hub_totals: &BTreeMap<String, u64>,
    total_bytes: Option<u64>,
) -> Option<ReadWeights> {
    // Iterate over the names twice instead of keeping them: there may be some 100 000.
    let mut elements: BTreeMap<Role, u64> = BTreeMap::new();
    for (name, _) in named.iter() {
        let tensor = tensor_of(&name)?;
        let count = elements.entry(tensor.role).or_default();
        let each = tensor
            .shape
            .iter()
            .try_fold(1_u64, |product, size| product.checked_mul(*size))?;
        *count = count.checked_add(each)?;
    }

    let types = types(&elements, hub_totals)?;
    let mut builder = InventoryBuilder::default();
    let mut predicted: BTreeMap<&str, PredictedFile> = BTreeMap::new();

    for (name, file) in named.iter() {
        let tensor = tensor_of(&name)?;
        let dtype = *types.get(&tensor.role)?;
        let bytes = dtype.stored(tensor.shape.iter().product())?;
        predicted
            .entry(file)
            .or_default()
            .add(&name, dtype.name(), &tensor.shape, bytes);
        builder.add("", &name, Storage::Known(dtype), &tensor.shape, bytes);
    }

    if predicted.len() != files.len() {
        return None;
    }

    for file in files {
        predicted.get_mut(file.path.as_str())?.fits(file.bytes?)?;
    }

    let inventory = builder.finish();
    if total_bytes.is_some_and(|total| inventory.bytes() != Bytes::new(total)) {
        return None;
    }

    let of = u32::try_from(files.len()).ok()?;
    Some(ReadWeights {
        inventory,
        gguf: None,
        ctranslate2: None,
        table: TablePlace::default(),
        evidence: Evidence::Inferred { read: 0, of },
        coverage: Coverage::default(),
        warnings: Vec::new(),
    })
}

/// Returns the type of each role, if exactly one assignment gives the Hub's totals.
fn types(
    elements: &BTreeMap<Role, u64>,
    totals: &BTreeMap<String, u64>,
) -> Option<BTreeMap<Role, Dtype>> {
    let mut choices: Vec<BTreeMap<Role, Dtype>> = vec![BTreeMap::new()];
    for &role in elements.keys() {
        let extend_choice = |choice: BTreeMap<Role, Dtype>| {
            possible_types(role).iter().map(move |dtype| {
                let mut choice = choice.clone();
                choice.insert(role, *dtype);
                choice
            })
        };
        choices = choices.into_iter().flat_map(extend_choice).collect();
    }

    let matches_totals = |choice: &BTreeMap<Role, Dtype>| {
        let mut by_type: BTreeMap<&str, u64> = BTreeMap::new();
        for (role, dtype) in choice {
            let count = by_type.entry(dtype.name()).or_default();
            *count = count.saturating_add(elements.get(role).copied().unwrap_or(0));
        }

        by_type.len() == totals.len()
            && by_type
                .iter()
                .all(|(name, count)| totals.get(*name) == Some(count))
    };

    let mut matching = choices.into_iter().filter(matches_totals);
    let only = matching.next()?;

    matching.next().is_none().then_some(only)
}

const fn possible_types(role: Role) -> &'static [Dtype] {
    match role {
        Role::Plain => &[Dtype::BF16, Dtype::F16, Dtype::F32],
        Role::Packed => &[Dtype::U8],
        Role::Quantized => &[Dtype::F8E4M3],
        Role::Numbers => &[Dtype::I64],
        Role::Words => &[Dtype::U32],
        Role::Scale | Role::Router => &[Dtype::F32, Dtype::BF16, Dtype::F16],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A small decoder in one file, with the header it would have.
    struct Repository {
        files: Vec<WeightFile>,
        index: Option<Index>,
        config: Value,
        totals: BTreeMap<String, u64>,
    }

    fn repository() -> Repository {
        let config = json!({"model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
            "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 100});
        let blueprint = Blueprint::from_config(&config).expect("known");
        let (mut header, mut at, mut elements) = (json!({"__metadata__": {"format": "pt"}}), 0, 0);

        for name in blueprint.names("model.", false).expect("names") {
            let shape = blueprint.tensor(&name, |_| false).expect("known").shape;
            let count: u64 = shape.iter().product();
            header[name] =
                json!({"dtype": "BF16", "shape": shape, "data_offsets": [at, at + count * 2]});
            (at, elements) = (at + count * 2, elements + count);
        }

        let length = 8 + (header.to_string().len() as u64).next_multiple_of(8) + at;
        let file = WeightFile {
            path: "model.safetensors".into(),
            component: String::new(),
            bytes: Some(length),
        };

        Repository {
            files: vec![file],
            index: None,
            config,
            totals: BTreeMap::from([("BF16".into(), elements)]),
        }
    }

    impl Repository {
        fn predicted(&self) -> Option<ReadWeights> {
            predict(&self.files, self.index.as_ref(), &self.config, &self.totals)
        }

        fn with_index(mut self) -> Self {
            let blueprint = Blueprint::from_config(&self.config).expect("known");
            let names = blueprint.names("model.", false).expect("names");
            let names = names
                .iter()
                .map(|name| (name.as_str(), "model.safetensors"));
            let weight_map = WeightMap::collect(names).expect("names");
            self.index = Some(Index {
                total_bytes: self.totals.get("BF16").map(|count| count * 2),
                weight_map,
            });

            self
        }
    }

    impl Repository {
        /// Keeps the names of the index that `keep` accepts, and adds `more`.
        fn rename(&mut self, keep: fn(&str) -> bool, more: &[&str]) {
            let index = self.index.as_mut().expect("an index");
            let kept: Vec<String> = index
                .weight_map
                .iter()
                .map(|(name, _)| name)
                .filter(|name| keep(name))
                .collect();

            let names = kept.iter().map(String::as_str).chain(more.iter().copied());
            index.weight_map =
                WeightMap::collect(names.map(|name| (name, "model.safetensors"))).expect("names");
        }
    }

    #[test]
    fn agreeing_repository_is_predicted() {
        for repository in [repository(), repository().with_index()] {
            let weights = repository.predicted().expect("predicted");
            assert_eq!(weights.evidence, Evidence::Inferred { read: 0, of: 1 });
            assert_eq!(
                Some(&(weights.inventory.bytes().get() / 2)),
                repository.totals.get("BF16")
            );
        }
    }

    /// Changes each of the facts that must agree by the least amount possible.
    #[test]
    fn any_contradiction_prevents_prediction() {
        type Change = fn(&mut Repository);
        let changes: &[(&str, Change)] = &[
            ("a total", |it| {
                *it.totals.get_mut("BF16").expect("there") += 1;
            }),
            ("another type", |it| {
                it.totals.insert("F32".into(), 1);
            }),
            ("no totals", |it| it.totals.clear()),
            ("a longer file", |it| {
                it.files[0].bytes = it.files[0].bytes.map(|bytes| bytes + 1024);
            }),
            ("a shorter file", |it| {
                it.files[0].bytes = it.files[0].bytes.map(|bytes| bytes - 256);
            }),
            ("a length that is not known", |it| it.files[0].bytes = None),
            ("a wider layer", |it| {
                it.config["intermediate_size"] = json!(129);
            }),
            ("a second file", |it| it.files.push(it.files[0].clone())),
        ];

        for (what, change) in changes {
            for mut repository in [repository(), repository().with_index()] {
                change(&mut repository);
                assert!(repository.predicted().is_none(), "{what}");
            }
        }
        // With an index the names are known; the configuration then shows that a layer is missing.
        for (key, value) in [
            ("num_hidden_layers", json!(3)),
            ("model_type", json!("qwen3")),
        ] {
            let mut repository = repository();
            repository.config[key] = value;
            assert!(repository.predicted().is_none(), "{key}");
        }

        let index_changes: &[(&str, Change)] = &[
            ("a name that no such model has", |it| {
                it.rename(|_| true, &["model.extra.weight"]);
            }),
            ("a name less", |it| {
                it.rename(|name| name != "model.norm.weight", &[]);
            }),
            ("another sum", |it| {
                it.index.as_mut().expect("an index").total_bytes = Some(2);
            }),
            ("no sum", |it| {
                it.index.as_mut().expect("an index").total_bytes = None;
            }),
        ];

        for (what, change) in index_changes {
            let mut repository = repository().with_index();
            change(&mut repository);
            assert!(repository.predicted().is_none(), "{what}");
        }
    }

    /// GPT-2 as published, with its masks and without a prefix.
    #[test]
    fn listed_model_is_predicted_by_sums() {
        let config = json!({"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_positions": 32, "vocab_size": 100});
        let list = blueprint::tensor_lists(&config).remove(0);
        let (mut header, mut at) = (json!({"__metadata__": {"format": "pt"}}), 0_u64);
        for (name, tensor) in list {
            let end = at + tensor.shape.iter().product::<u64>() * 4;
            header[name] =
                json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [at, end]});
            at = end;
        }

        let length = 8 + (header.to_string().len() as u64).next_multiple_of(8) + at;
        let predict_with = |length: u64, elements: u64| {
            let file = WeightFile {
                path: "model.safetensors".into(),
                component: String::new(),
                bytes: Some(length),
            };

            predict(
                &[file],
                None,
                &config,
                &BTreeMap::from([("F32".into(), elements)]),
            )
        };

        let weights = predict_with(length, at / 4).expect("predicted");
        assert_eq!(
            (weights.inventory.bytes(), weights.evidence),
            (Bytes::new(at), Evidence::Inferred { read: 0, of: 1 })
        );

        for (length, elements) in [
            (length, at / 4 + 1),
            (length + 1024, at / 4),
            (length - 256, at / 4),
        ] {
            assert!(
                predict_with(length, elements).is_none(),
                "{length} {elements}"
            );
        }
    }

    /// Returns the files of a model with the tensors of `list` in `dtype`, and packed words in U32.
    /// `split` is the number of files.
    fn stored(list: &TensorList, config: &Value, dtype: Dtype, split: usize) -> Repository {
        let mut totals: BTreeMap<String, u64> = BTreeMap::new();
        let (mut files, mut names, mut total_bytes) = (Vec::new(), Vec::new(), 0);

        for (number, part) in list.chunks(list.len().div_ceil(split)).enumerate() {
            let path = format!("model-{number}.safetensors");
            let (mut header, mut at) = (json!({"__metadata__": {"format": "pt"}}), 0_u64);

            for (name, tensor) in part {
                let dtype = if tensor.role == Role::Words {
                    Dtype::U32
                } else {
                    dtype
                };

                let count = tensor.shape.iter().product();
                let end = at + dtype.stored(count).expect("whole bytes").get();
                header[name] = json!({"dtype": dtype.name(), "shape": tensor.shape, "data_offsets": [at, end]});
                *totals.entry(dtype.name().to_owned()).or_default() += count;
                names.push((name.as_str(), path.clone()));
                at = end;
            }

            let length = 8 + (header.to_string().len() as u64).next_multiple_of(8) + at;
            files.push(WeightFile {
                path,
                component: String::new(),
                bytes: Some(length),
            });

            total_bytes += at;
        }

        let weight_map =
            WeightMap::collect(names.iter().map(|(name, path)| (*name, path.as_str())))
                .expect("names");
        let index = (split > 1).then_some(Index {
            total_bytes: Some(total_bytes),
            weight_map,
        });

        Repository {
            files,
            index,
            config: config.clone(),
            totals,
        }
    }

    fn qwen3_vl() -> Value {
        json!({"model_type": "qwen3_vl", "text_config": {"hidden_size": 64, "intermediate_size": 128,
            "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 100},
            "vision_config": {"deepstack_visual_indexes": [0], "depth": 2, "hidden_size": 32, "in_channels": 3,
            "intermediate_size": 48, "num_position_embeddings": 16, "out_hidden_size": 64, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2}})
    }

    fn mlx() -> Value {
        json!({"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
            "head_dim": 16, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 100,
            "quantization": {"bits": 4, "group_size": 32}})
    }

    #[test]
    fn listed_models_are_predicted_with_indices() {
        for config in [qwen3_vl(), mlx()] {
            for (list, split) in blueprint::tensor_lists(&config).iter().zip([1, 3]) {
                let repository = stored(list, &config, Dtype::BF16, split);
                let weights = repository.predicted().expect("predicted");
                let of = u32::try_from(split).expect("small");
                assert_eq!(weights.evidence, Evidence::Inferred { read: 0, of });
                assert_eq!(weights.inventory.tensors(), list.len() as u64);
            }
        }
    }

    #[test]
    fn index_must_match_the_list() {
        let config = qwen3_vl();
        let lists = blueprint::tensor_lists(&config);
        let file = "model-0.safetensors";

        for (what, keep, more) in [
            ("a missing name", "model.visual.merger.norm.bias", None),
            (
                "another name",
                "model.visual.merger.norm.bias",
                Some("model.visual.merger.norm.offset"),
            ),
        ] {
            let mut repository = stored(&lists[0], &config, Dtype::BF16, 2);
            let index = repository.index.as_mut().expect("an index");
            let pairs: Vec<_> = index
                .weight_map
                .iter()
                .map(|(name, file)| (name, file.to_owned()))
                .collect();

            let kept = pairs
                .iter()
                .filter(|(name, _)| name != keep)
                .map(|(name, file)| (name.as_str(), file.as_str()));
            index.weight_map =
                WeightMap::collect(kept.chain(more.map(|name| (name, file)))).expect("names");
            assert!(repository.predicted().is_none(), "{what}");
        }
    }

    #[test]
    fn packed_words_must_be_u32() {
        let config = mlx();
        let mut repository = stored(
            &blueprint::tensor_lists(&config)[0],
            &config,
            Dtype::BF16,
            1,
        );

        assert!(repository.predicted().is_some());

        let words = repository.totals.remove("U32").expect("packed words");
        repository.totals.insert("I32".to_owned(), words);
        assert!(repository.predicted().is_none());
    }

    #[test]
    fn lists_of_equal_sums_are_ambiguous() {
        let plain_tensor = |shape: &[u64]| ExpectedTensor {
            shape: shape.to_vec(),
            role: Role::Plain,
        };

        let list_of = |name: &str, shape: &[u64]| vec![(name.to_owned(), plain_tensor(shape))];
        let original = list_of("a.weight", &[20, 30]);
        let repository = stored(&original, &json!({}), Dtype::BF16, 1);

        let match_with = |other: TensorList| {
            by_lists(
                vec![original.clone(), other],
                &repository.files,
                None,
                &repository.totals,
            )
        };

        assert!(
            match_with(list_of("b.weight", &[20, 30])).is_some(),
            "another name"
        );
        assert!(
            match_with(list_of("a.weight", &[20, 31])).is_some(),
            "another sum"
        );

        assert!(
            match_with(list_of("a.weight", &[30, 20])).is_none(),
            "another shape"
        );
    }

    /// The most that a hostile file can do: shapes that its configuration does not have, with every
    /// sum as predicted. No engine loads such a file; the bytes are right.
    #[test]
    fn right_sums_give_right_bytes() {
        let repository = repository();
        let (length, total) = (
            repository.files[0].bytes.expect("known"),
            repository.totals["BF16"] * 2,
        );
        let weights = repository.predicted().expect("predicted");
        assert_eq!(weights.inventory.bytes(), Bytes::new(total));

        assert!(
            (8..4096).contains(&(length - total)),
            "the rest is a header"
        );
    }

    /// Two assignments with the same totals are ambiguous.
    #[test]
    fn exchangeable_types_are_ambiguous() {
        let elements = BTreeMap::from([(Role::Plain, 7), (Role::Router, 7)]);
        let totals_of = |pairs: &[(&str, u64)]| {
            pairs
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };

        assert_eq!(
            types(&elements, &totals_of(&[("BF16", 7), ("F32", 7)])),
            None
        );
        let both = types(&elements, &totals_of(&[("BF16", 14)])).expect("one way");
        assert_eq!(
            both,
            BTreeMap::from([(Role::Plain, Dtype::BF16), (Role::Router, Dtype::BF16)])
        );
    }
}
