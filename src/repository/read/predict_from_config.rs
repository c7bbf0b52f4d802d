//! No header at all: where the configuration of a known architecture promises every tensor, and
//! everything else that is known of the repository agrees to the byte, there is nothing left to
//! read.
//!
//! What must agree:
//!
//! 1. names: where there is an index, it names tensors that the blueprint knows, each and all of
//!    them;
//! 2. lengths: each file, less its promised data, leaves a header of exactly the length that such
//!    tensors need;
//! 3. the index's `total_size`;
//! 4. elements by type: the Hub counts them from the headers themselves, and there is exactly one
//!    way to give the promised tensors their types so that every count comes out.
//!
//! What could still differ is a file whose tensors have other shapes than its configuration says
//! while every type's elements, the file's length and the digits in its header come out the same.
//! No engine could load such a file by its configuration, and the bytes of each type would be right
//! all the same. In an encoder of few layers, the names may also begin with the model's own or not:
//! the shapes are the same.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::model::blueprint::{self, Blueprint, ExpectedTensor, Role, TensorList};
use hf_mem_core::model::gguf::TablePlace;
use hf_mem_core::model::metadata::Evidence;
use hf_mem_core::model::tensors::{InventoryBuilder, Storage};
use hf_mem_core::model::weight_files::{Index, WeightFile, WeightMap};
use hf_mem_core::model::{Dtype, Inventory};
use serde_json::Value;

use super::WeightsToRead;
use super::coverage::Coverage;
use super::infer_headers::Predicted;

/// The weights in `files`, which are all that the totals count, if `config` promises them and
/// everything else known proves it.
pub(super) fn keep(
    files: &[WeightFile],
    index: Option<&Index>,
    config: &Value,
    hub_totals: &BTreeMap<String, u64>,
) -> Option<WeightsToRead> {
    let known = Blueprint::from_config(config)
        .and_then(|blueprint| by_blueprint(&blueprint, files, index, hub_totals));
    known.or_else(|| by_lists(blueprint::tensor_lists(config), files, index, hub_totals))
}

/// The weights in `files` if they hold the tensors of one of `lists`. Lists that the totals and
/// lengths cannot tell apart may differ in names only; where they differ in shapes or types as
/// well, nothing is proved.
fn by_lists(
    lists: Vec<TensorList>,
    files: &[WeightFile],
    index: Option<&Index>,
    hub_totals: &BTreeMap<String, u64>,
) -> Option<WeightsToRead> {
    let mut right = lists
        .into_iter()
        .filter_map(|list| by_list(list, files, index, hub_totals));
    let first = right.next()?;
    let shapes = shapes(&first.inventory);

    right
        .all(|other| self::shapes(&other.inventory) == shapes)
        .then_some(first)
}

/// How many tensors there are of each type and shape.
fn shapes(inventory: &Inventory) -> BTreeMap<(&Storage, &[u64]), u64> {
    let mut counts = BTreeMap::new();
    for class in &inventory.classes {
        *counts.entry((&class.storage, &*class.shape)).or_default() += class.count;
    }
    counts
}

/// The weights in `files` if they hold the tensors of `list`, which are all that an index names.
fn by_list(
    list: TensorList,
    files: &[WeightFile],
    index: Option<&Index>,
    hub_totals: &BTreeMap<String, u64>,
) -> Option<WeightsToRead> {
    let tensors: BTreeMap<String, ExpectedTensor> = list.into_iter().collect();
    let promised = |name: &str| tensors.get(name).cloned();

    match (index, files) {
        (Some(index), _) => {
            let all_named = index.weight_map.len() == tensors.len();
            all_named.then(|| {
                proved(
                    &promised,
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
            proved(&promised, files, &named, hub_totals, None)
        }
        (None, _) => None,
    }
}

fn by_blueprint(
    blueprint: &Blueprint,
    files: &[WeightFile],
    index: Option<&Index>,
    hub_totals: &BTreeMap<String, u64>,
) -> Option<WeightsToRead> {
    let proved = |named: &WeightMap, total_bytes: Option<u64>| {
        let promised = |name: &str| blueprint.tensor(name, |other| named.contains(other));
        proved(&promised, files, named, hub_totals, total_bytes)
    };

    match (index, files) {
        (Some(index), _) => proved(&index.weight_map, Some(index.total_bytes?)),
        // Without an index: the whole model with or without an output head of its own, or the
        // decoder alone.
        (None, [file]) => [("model.", true), ("model.", false), ("", false)]
            .into_iter()
            .find_map(|(prefix, head)| {
                let names = blueprint.names(prefix, head)?;
                let named = WeightMap::collect(
                    names.iter().map(|name| (name.as_str(), file.path.as_str())),
                )
                .ok()?;
                proved(&named, None)
            }),
        _ => None,
    }
}

fn proved(
    promised: &dyn Fn(&str) -> Option<ExpectedTensor>,
    files: &[WeightFile],
    named: &WeightMap,
    hub_totals: &BTreeMap<String, u64>,
    total_bytes: Option<u64>,
) -> Option<WeightsToRead> {
    // The names are gone through twice, so that nothing is kept of each: there may be some 100 000.
    let mut elements: BTreeMap<Role, u64> = BTreeMap::new();
    for (name, _) in named.iter() {
        let promised = promised(&name)?;
        let count = elements.entry(promised.role).or_default();
        let each = promised
            .shape
            .iter()
            .try_fold(1_u64, |product, size| product.checked_mul(*size))?;
        *count = count.checked_add(each)?;
    }

    let types = types(&elements, hub_totals)?;
    let mut builder = InventoryBuilder::default();
    let mut predicted: BTreeMap<&str, Predicted> = BTreeMap::new();

    for (name, file) in named.iter() {
        let promised = promised(&name)?;
        let dtype = *types.get(&promised.role)?;
        let bytes = dtype.stored(promised.shape.iter().product())?;
        predicted
            .entry(file)
            .or_default()
            .add(&name, dtype.name(), &promised.shape, bytes);
        builder.add("", &name, Storage::Known(dtype), &promised.shape, bytes);
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
    Some(WeightsToRead {
        inventory,
        gguf: None,
        table: TablePlace::default(),
        evidence: Evidence::Inferred { read: 0, of },
        coverage: Coverage::default(),
        doubts: Vec::new(),
    })
}

/// The type of each role, where exactly one choice gives the Hub's totals.
fn types(
    elements: &BTreeMap<Role, u64>,
    totals: &BTreeMap<String, u64>,
) -> Option<BTreeMap<Role, Dtype>> {
    let possible = |role: Role| -> &[Dtype] {
        match role {
            Role::Plain => &[Dtype::BF16, Dtype::F16, Dtype::F32],
            Role::Packed => &[Dtype::U8],
            Role::Quantized => &[Dtype::F8E4M3],
            Role::Numbers => &[Dtype::I64],
            Role::Words => &[Dtype::U32],
            Role::Scale | Role::Router => &[Dtype::F32, Dtype::BF16, Dtype::F16],
        }
    };

    let mut choices: Vec<BTreeMap<Role, Dtype>> = vec![BTreeMap::new()];
    for &role in elements.keys() {
        let more = |choice: BTreeMap<Role, Dtype>| {
            possible(role).iter().map(move |dtype| {
                let mut choice = choice.clone();
                choice.insert(role, *dtype);
                choice
            })
        };
        choices = choices.into_iter().flat_map(more).collect();
    }

    let right = |choice: &BTreeMap<Role, Dtype>| {
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

    let mut right = choices.into_iter().filter(right);
    let only = right.next()?;

    right.next().is_none().then_some(only)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One file of a small decoder, as its own header would have it.
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
        fn kept(&self) -> Option<WeightsToRead> {
            keep(&self.files, self.index.as_ref(), &self.config, &self.totals)
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
    fn what_the_configuration_promises_and_all_else_proves_is_not_read() {
        for repository in [repository(), repository().with_index()] {
            let weights = repository.kept().expect("kept");
            assert_eq!(weights.evidence, Evidence::Inferred { read: 0, of: 1 });
            assert_eq!(
                Some(&(weights.inventory.bytes().get() / 2)),
                repository.totals.get("BF16")
            );
        }
    }

    /// Each of the things that must agree, off by as little as it can be.
    #[test]
    fn any_contradiction_and_the_headers_are_read() {
        type Spoil = fn(&mut Repository);
        let spoils: &[(&str, Spoil)] = &[
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

        for (what, spoil) in spoils {
            for mut repository in [repository(), repository().with_index()] {
                spoil(&mut repository);
                assert!(repository.kept().is_none(), "{what}");
            }
        }
        // With an index the names are known; that a layer is missing is seen when the configuration
        // is held against them.
        for (key, value) in [
            ("num_hidden_layers", json!(3)),
            ("model_type", json!("qwen3")),
        ] {
            let mut repository = repository();
            repository.config[key] = value;
            assert!(repository.kept().is_none(), "{key}");
        }

        let index_spoils: &[(&str, Spoil)] = &[
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

        for (what, spoil) in index_spoils {
            let mut repository = repository().with_index();
            spoil(&mut repository);
            assert!(repository.kept().is_none(), "{what}");
        }
    }

    /// GPT-2 as it is published, with its masks and without a prefix.
    #[test]
    fn listed_model_is_proved_unless_a_sum_differs() {
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
        let kept = |length: u64, elements: u64| {
            let file = WeightFile {
                path: "model.safetensors".into(),
                component: String::new(),
                bytes: Some(length),
            };

            keep(
                &[file],
                None,
                &config,
                &BTreeMap::from([("F32".into(), elements)]),
            )
        };

        let weights = kept(length, at / 4).expect("proved");
        assert_eq!(
            (weights.inventory.bytes(), weights.evidence),
            (Bytes::new(at), Evidence::Inferred { read: 0, of: 1 })
        );

        for (length, elements) in [
            (length, at / 4 + 1),
            (length + 1024, at / 4),
            (length - 256, at / 4),
        ] {
            assert!(kept(length, elements).is_none(), "{length} {elements}");
        }
    }

    /// The files of a model with the tensors of `list` in `dtype`, and packed words in U32. `split`
    /// is the number of files.
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
    fn listed_models_are_proved_with_indices() {
        for config in [qwen3_vl(), mlx()] {
            for (list, split) in blueprint::tensor_lists(&config).iter().zip([1, 3]) {
                let repository = stored(list, &config, Dtype::BF16, split);
                let weights = repository.kept().expect("proved");
                let of = u32::try_from(split).expect("small");
                assert_eq!(weights.evidence, Evidence::Inferred { read: 0, of });
                assert_eq!(weights.inventory.tensors(), list.len() as u64);
            }
        }
    }

    #[test]
    fn index_that_differs_from_list_refuses() {
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
            assert!(repository.kept().is_none(), "{what}");
        }
    }

    #[test]
    fn packed_words_in_another_type_refuse() {
        let config = mlx();
        let mut repository = stored(
            &blueprint::tensor_lists(&config)[0],
            &config,
            Dtype::BF16,
            1,
        );

        assert!(repository.kept().is_some());

        let words = repository.totals.remove("U32").expect("packed words");
        repository.totals.insert("I32".to_owned(), words);
        assert!(repository.kept().is_none());
    }

    #[test]
    fn lists_of_equal_sums_prove_nothing() {
        let tensor = |shape: &[u64]| ExpectedTensor {
            shape: shape.to_vec(),
            role: Role::Plain,
        };

        let list = |name: &str, shape: &[u64]| vec![(name.to_owned(), tensor(shape))];
        let one = list("a.weight", &[20, 30]);
        let repository = stored(&one, &json!({}), Dtype::BF16, 1);

        let proved = |other: TensorList| {
            by_lists(
                vec![one.clone(), other],
                &repository.files,
                None,
                &repository.totals,
            )
        };

        assert!(
            proved(list("b.weight", &[20, 30])).is_some(),
            "another name"
        );
        assert!(proved(list("a.weight", &[20, 31])).is_some(), "another sum");

        assert!(
            proved(list("a.weight", &[30, 20])).is_none(),
            "another shape"
        );
    }

    /// The most that a hostile file can do: shapes that its configuration does not have, every sum
    /// as promised. No engine loads such a file; the bytes are right.
    #[test]
    fn where_every_sum_is_right_so_are_the_bytes() {
        let repository = repository();
        let (length, total) = (
            repository.files[0].bytes.expect("known"),
            repository.totals["BF16"] * 2,
        );
        let weights = repository.kept().expect("kept");
        assert_eq!(weights.inventory.bytes(), Bytes::new(total));

        assert!(
            (8..4096).contains(&(length - total)),
            "what is left is a header"
        );
    }

    /// Two ways to come to the same totals are no proof.
    #[test]
    fn types_that_could_be_exchanged_prove_nothing() {
        let elements = BTreeMap::from([(Role::Plain, 7), (Role::Router, 7)]);
        let totals = |pairs: &[(&str, u64)]| {
            pairs
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };

        assert_eq!(types(&elements, &totals(&[("BF16", 7), ("F32", 7)])), None);
        let both = types(&elements, &totals(&[("BF16", 14)])).expect("one way");
        assert_eq!(
            both,
            BTreeMap::from([(Role::Plain, Dtype::BF16), (Role::Router, Dtype::BF16)])
        );
    }
}
