//! Checks the optional corpus's diffusers pipelines (`../shared/hub/models`).
//!
//! The tests compare published component sizes, and what each offload leaves on the device, with
//! the rows of `referees/diffusers 0.42.1`.
#![expect(
    clippy::unwrap_used,
    reason = "an unreadable corpus is a failure of the test"
)]
#![expect(clippy::print_stdout, reason = "people read the table")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use flate2::read::GzDecoder;
use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::diffusers::Diffusers;
use hf_mem_core::engines::{
    AskedWorkload, Component, ComponentName, Engine, EngineRequest, Interval, Offload, Split,
};
use hf_mem_core::model::architecture::Unsupported;
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Format, Identity, Model, PipelineComponent, Storage};
use serde_json::{Value, json};

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Reads a pipeline of the corpus, without the 16-bit variants that some repositories add to their
/// weights.
fn pipeline(repo: &str) -> Option<Model> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/hub/models")
        .join(repo);
    let Some(index) = json(&folder.join("model_index.json")) else {
        println!("skipped: ../shared/hub/models/{repo} is not there");
        return None;
    };

    let tensors = GzDecoder::new(File::open(folder.join("tensors.json.gz")).unwrap());
    let tensors: Vec<(String, String, String, Vec<u64>)> =
        serde_json::from_reader(tensors).unwrap();
    let mut builder = InventoryBuilder::default();

    for (file, name, dtype, shape) in &tensors {
        let component = file.split_once('/').map_or("", |(folder, _)| folder);
        if file.contains(".fp16.") || index.get(component).is_none() {
            continue;
        }

        let dtype = Dtype::from_safetensors(dtype).unwrap();
        let bytes = dtype
            .stored(Bytes::product(shape.iter().copied()).get())
            .unwrap();
        builder.add(component, name, Storage::Known(dtype), shape, bytes);
    }

    let inventory = builder.finish();
    let sizes = inventory.bytes_by_component();
    let components = index
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(name, class)| {
            Some(PipelineComponent {
                name: name.clone(),
                class: class.get(1)?.as_str()?.to_owned(),
                bytes: sizes.get(name.as_str()).copied()?,
                config: json(&folder.join(name).join("config.json")),
            })
        })
        .collect();

    Some(Model {
        identity: Identity {
            repo: repo.to_owned(),
            ..Identity::default()
        },
        format: Format::Diffusers,
        weight_files: 1,
        architecture: Err(Unsupported::NoConfiguration),
        components,
        parameters: None,
        adapter: None,
        draft: None,
        asks_for_pooling: false,
        variants: Vec::new(),
        assumptions: Vec::new(),
        contradiction: None,
        warnings: Vec::new(),
        inventory,
    })
}

fn device() -> DeviceFacts {
    DeviceFacts {
        uuid: "declared-0".to_owned(),
        index: 0,
        name: "RTX 4090".to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::gib(24),
        reserved_bytes: None,
        compute_capability: Some((8, 9)),
        multiprocessors: Some(128),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

/// Returns the lines of what a pipeline needs on the device.
fn lines(
    model: &Model,
    offload: Offload,
    parameters: &BTreeMap<String, Value>,
    asked: AskedWorkload,
) -> Vec<Component> {
    let devices = [device()];
    let case = EngineRequest {
        model,
        version: None,
        parameters,
        asked,
        devices: &devices,
    };

    let prepared = Diffusers.prepare(&case).unwrap();
    let split = Split {
        offload,
        ..Split::single(0)
    };

    prepared.check(&split).unwrap();
    let mut parts = prepared.fixed(&split, 0, &devices[0]).unwrap();
    parts.extend(
        prepared
            .variable(&split, 0, &devices[0], prepared.workload())
            .unwrap(),
    );

    parts
}

/// Returns the weights on the device, and the likely total with everything else.
fn need(model: &Model, offload: Offload) -> (Bytes, Bytes) {
    let parts = lines(model, offload, &BTreeMap::new(), AskedWorkload::default());

    for part in &parts {
        println!(
            "    {:?} {} .. {} .. {}: {}",
            part.name, part.bytes.low, part.bytes.likely, part.bytes.high, part.detail
        );
    }

    let weights = parts
        .iter()
        .filter(|part| part.name == ComponentName::Weights)
        .map(|part| part.bytes.likely)
        .sum();

    (weights, parts.iter().map(|part| part.bytes.likely).sum())
}

#[test]
fn pipelines_are_sized_for_every_offload() {
    // (repository, resident weights, the largest component), as stored. Next to the U-Net of Stable
    // Diffusion 1.5 the safety checker stays.
    let published = [
        (
            "black-forest-labs/FLUX.1-dev",
            33_741_198_278,
            23_802_816_640,
        ),
        ("Qwen/Qwen-Image", 57_698_920_550, 40_860_802_176),
        (
            "stabilityai/stable-diffusion-xl-base-1.0",
            13_875_351_468,
            10_269_854_736,
        ),
        (
            "runwayml/stable-diffusion-v1-5",
            5_480_870_252,
            3_438_083_856 + 1_215_928_408,
        ),
    ];

    for (repo, resident, largest) in published {
        let Some(model) = pipeline(repo) else {
            continue;
        };

        println!("{repo}");
        let (weights, whole) = need(&model, Offload::None);
        assert_eq!(weights, Bytes::new(resident), "{repo}");
        let (component, alone) = need(&model, Offload::Components);
        assert_eq!(component, Bytes::new(largest), "{repo}");
        let (_, leaves) = need(&model, Offload::Leaves);
        assert!(
            leaves < alone && alone < whole,
            "{repo}: {leaves}, {alone}, {whole}"
        );
    }
}

/// Returns a pipeline that has only the component `name`.
fn alone(model: &Model, name: &str) -> Model {
    let mut inventory = model.inventory.clone();
    inventory.classes.retain(|class| *class.component == *name);
    let components = model.components.iter().filter(|part| part.name == name);

    Model {
        components: components.cloned().collect(),
        inventory,
        ..model.clone()
    }
}

/// Returns the parameters of the group offloading `kind`.
fn group_parameters(kind: &str) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::from([("enable_group_offload".to_owned(), json!(true))]);
    let mut set = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
    match kind.split_once(' ').unwrap_or((kind, "")) {
        ("blocks", count) => {
            set("offload_type", json!("block_level"));
            set("num_blocks_per_group", json!(count.parse::<u64>().unwrap()));
        }
        ("stream", "blocks") => {
            set("offload_type", json!("block_level"));
            set("num_blocks_per_group", json!(1));
            set("use_stream", json!(true));
        }
        ("leaves", _) => set("offload_type", json!("leaf_level")),
        ("stream", "leaves") => {
            set("offload_type", json!("leaf_level"));
            set("use_stream", json!(true));
        }
        (other, _) => panic!("{other}"),
    }

    all
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "print only")]
fn offloaded_parts_match_referee() {
    let rows = include_str!("referee_rows/diffusers_0.42.1_offload.tsv");

    for row in rows.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = row.split('\t').collect();
        let [repo, component, kind, referee] = fields[..] else {
            panic!("{row}");
        };
        let referee: u64 = referee.parse().unwrap();
        let Some(model) = pipeline(repo) else {
            continue;
        };

        let model = alone(&model, component);
        let (offload, mut parameters) = match kind {
            "sequential" => (Offload::Leaves, BTreeMap::new()),
            kind => (Offload::None, group_parameters(kind)),
        };

        // The denoiser would say these, and this pipeline may have none.
        if repo.ends_with("Qwen-Image") && component == "text_encoder" {
            parameters.insert("max_sequence_length".to_owned(), json!(34 + 1024));
        }

        if repo.ends_with("Qwen-Image") && component == "transformer" {
            parameters.insert("max_sequence_length".to_owned(), json!(1024));
        }

        if repo.ends_with("v1-5") {
            parameters.extend([
                ("width".to_owned(), json!(512)),
                ("height".to_owned(), json!(512)),
            ]);
        }

        let asked = AskedWorkload {
            dtype: Some("bfloat16".to_owned()),
            ..AskedWorkload::default()
        };
        let parts = lines(&model, offload, &parameters, asked);
        let sum: Interval = parts
            .iter()
            .filter(|part| {
                matches!(
                    part.name,
                    ComponentName::Weights | ComponentName::Activations
                )
            })
            .map(|part| part.bytes)
            .sum();

        let ratio = sum.likely.get() as f64 / referee as f64;
        println!("{ratio:.3} {repo} {component} {kind}: {referee}, {sum:?}");
        let referee = Bytes::new(referee);
        assert!(
            sum.low <= referee && referee <= sum.high && (0.98..1.7).contains(&ratio),
            "{repo} {component} {kind}: {sum:?}"
        );
    }
}
