use serde_json::json;

use super::*;

fn listing(paths: &[&str]) -> Listing {
    paths
        .iter()
        .map(|path| ((*path).to_owned(), Some(1)))
        .collect()
}

fn index(files: &[(&str, &str)]) -> Index {
    Index {
        total_bytes: None,
        weight_map: WeightMap::collect(files.iter().copied()).expect("names"),
    }
}

fn chosen_paths(listing: &Listing, documents: &Documents) -> Vec<String> {
    choose(listing, documents, None)
        .expect("a choice")
        .files
        .into_iter()
        .map(|file| file.path)
        .collect()
}

#[test]
fn index_excludes_other_files() {
    let files = listing(&[
        "model-1.safetensors",
        "model-2.safetensors",
        "consolidated.safetensors",
        "extra.safetensors",
        "original/model.safetensors",
        "metal/model.bin",
        "onnx/model.safetensors",
    ]);

    let mut documents = Documents::default();
    let map = index(&[
        ("a", "model-1.safetensors"),
        ("b", "model-2.safetensors"),
        ("c", "model-1.safetensors"),
    ]);

    documents
        .indices
        .insert("model.safetensors.index.json".into(), map);
    assert_eq!(
        chosen_paths(&files, &documents),
        ["model-1.safetensors", "model-2.safetensors"]
    );
}

#[test]
fn index_with_absent_file_is_error() {
    let mut documents = Documents::default();
    documents.indices.insert(
        "model.safetensors.index.json".into(),
        index(&[("a", "gone.safetensors")]),
    );
    let error = choose(&listing(&["model.safetensors"]), &documents, None).expect_err("incomplete");
    assert!(
        matches!(error, ChoiceError::Incomplete { ref file, .. } if file == "gone.safetensors"),
        "{error}"
    );
}

#[test]
fn copies_variants_and_adapters_are_excluded() {
    let files = listing(&[
        "model.safetensors",
        "model.fp16.safetensors",
        "consolidated.00.safetensors",
        "adapter_model.safetensors",
        "pytorch_model.bin",
        "original/consolidated.00.pth",
        "model.onnx",
    ]);
    assert_eq!(
        chosen_paths(&files, &Documents::default()),
        ["model.safetensors"]
    );

    let shards = listing(&[
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]);
    assert_eq!(chosen_paths(&shards, &Documents::default()).len(), 2);
    let mistral = listing(&["consolidated.safetensors", "params.json"]);
    assert_eq!(
        chosen_paths(&mistral, &Documents::default()),
        ["consolidated.safetensors"]
    );
}

#[test]
fn pickles_are_last_resort() {
    let files = listing(&[
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "training_args.bin",
    ]);
    let choice = choose(&files, &Documents::default(), None).expect("bins");
    assert_eq!((choice.format, choice.files.len()), (Format::PytorchBin, 2));

    let none = choose(
        &listing(&["README.md", "original/x.safetensors"]),
        &Documents::default(),
        None,
    );
    assert!(matches!(none, Err(ChoiceError::NoWeights(_))), "{none:?}");
}

#[test]
fn pipeline_has_its_named_components() {
    let files = listing(&[
        "flux1-dev.safetensors",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/model.fp16.safetensors",
        "vae_decoder/model.onnx",
        "unused/model.safetensors",
    ]);

    let mut documents = Documents::default();
    documents.json.insert(
        "model_index.json".into(),
        json!({
            "_class_name": "FluxPipeline",
            "_diffusers_version": "0.30",
            "transformer": ["diffusers", "T"],
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "scheduler": ["diffusers", "EulerScheduler"],
            "image_encoder": [null, null],
            "safety_checker": ["stable_diffusion", "SafetyChecker"],
        }),
    );

    let choice = choose(&files, &documents, None).expect("a pipeline");
    let components: std::collections::BTreeSet<_> = choice
        .files
        .iter()
        .map(|file| file.component.as_str())
        .collect();

    assert_eq!(
        components.into_iter().collect::<Vec<_>>(),
        ["text_encoder", "transformer", "vae"]
    );
    assert_eq!(choice.files.len(), 4);
    assert_eq!(choice.components.len(), 5);

    assert_eq!(
        choice.notes,
        ["safety_checker (stable_diffusion.SafetyChecker) has no weights in this repository"]
    );
}

#[test]
fn complete_split_needs_no_index() {
    let index = "t/diffusion_pytorch_model.safetensors.index.json";
    let further_documents = |numbers: &[u32], more: &[&str]| {
        let part_name =
            |number: &u32| format!("t/diffusion_pytorch_model-{number:05}-of-00003.safetensors");
        let mut files: Listing = numbers
            .iter()
            .map(|number| (part_name(number), Some(1)))
            .collect();
        files.extend(listing(more));
        files.extend(listing(&[index, "t/config.json", "model_index.json"]));
        let mut documents = Documents::default();
        documents.json.insert(
            "model_index.json".into(),
            json!({"t": ["diffusers", "FluxTransformer2DModel"]}),
        );

        (
            more_documents(&files, &documents),
            chosen_paths(&files, &documents).len(),
        )
    };

    assert_eq!(
        further_documents(&[1, 2, 3], &[]),
        (vec!["t/config.json".to_owned()], 3)
    );
    assert_eq!(
        further_documents(&[1, 2, 3], &["t/diffusion_pytorch_model.fp16.safetensors"]).0,
        ["t/config.json"]
    );

    for (numbers, more) in [
        (&[1, 3][..], &[][..]),
        (&[1, 2, 3], &["t/diffusion_pytorch_model.safetensors"]),
        (&[1, 2, 3], &["t/other-00001-of-00002.safetensors"]),
        (&[], &["t/a.safetensors", "t/b.safetensors"]),
    ] {
        assert_eq!(
            further_documents(numbers, more).0,
            ["t/config.json", index],
            "{numbers:?} {more:?}"
        );
    }
}

#[test]
fn known_encoders_need_no_configuration() {
    let files = listing(&[
        "text_encoder/config.json",
        "text_encoder_2/config.json",
        "vae/config.json",
    ]);

    let mut documents = Documents::default();
    documents.json.insert(
        "model_index.json".into(),
        json!({
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "LlamaModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }),
    );

    assert_eq!(
        more_documents(&files, &documents),
        ["text_encoder_2/config.json", "vae/config.json"]
    );
}

#[test]
fn sentence_transformers_include_dense_modules() {
    let files = listing(&[
        "model.safetensors",
        "2_Dense/model.safetensors",
        "3_Dense/pytorch_model.bin",
        "1_Pooling/config.json",
    ]);

    let mut documents = Documents::default();
    documents.json.insert(
        "modules.json".into(),
        json!([
            {"path": "", "type": "Transformer"},
            {"path": "1_Pooling", "type": "Pooling"},
            {"path": "2_Dense", "type": "Dense"},
            {"path": "3_Dense", "type": "Dense"},
            {"path": "4_Normalize", "type": "N"},
        ]),
    );

    assert_eq!(
        chosen_paths(&files, &documents),
        [
            "model.safetensors",
            "2_Dense/model.safetensors",
            "3_Dense/pytorch_model.bin"
        ]
    );
}

#[test]
fn adapter_names_its_base_model() {
    let mut documents = Documents::default();
    documents.json.insert(
        "adapter_config.json".into(),
        json!({"base_model_name_or_path": "a/base", "r": 8}),
    );

    let choice = choose(
        &listing(&["adapter_model.safetensors", "README.md"]),
        &documents,
        None,
    )
    .expect("an adapter");
    assert_eq!(choice.base_model.as_deref(), Some("a/base"));
    let merged = listing(&["adapter_model.safetensors", "model.safetensors"]);
    assert_eq!(chosen_paths(&merged, &documents), ["model.safetensors"]);
}

#[test]
fn gguf_model_matches_name_or_quantization() {
    let files = listing(&[
        "m-Q4_K_M.gguf",
        "m-Q8_0.gguf",
        "mmproj-m-f16.gguf",
        "m.imatrix.gguf",
        "BF16/m-BF16-00001-of-00002.gguf",
        "BF16/m-BF16-00002-of-00002.gguf",
    ]);
    let choose_file = |file| choose(&files, &Documents::default(), file);
    let chosen_files = |file| {
        choose_file(file)
            .expect("a model")
            .files
            .into_iter()
            .map(|file| file.path)
            .collect::<Vec<_>>()
    };

    assert_eq!(chosen_files(None), ["m-Q4_K_M.gguf"]);
    assert_eq!(chosen_files(Some("q8_0")), ["m-Q8_0.gguf"]);
    assert_eq!(chosen_files(Some("m-Q8_0.gguf")), ["m-Q8_0.gguf"]);
    assert_eq!(chosen_files(Some("bf16")).len(), 2);
    assert_eq!(
        chosen_files(Some("BF16/m-BF16-00002-of-00002.gguf")).len(),
        2
    );
    assert_eq!(
        chosen_files(Some("mmproj-m-f16.gguf")),
        ["mmproj-m-f16.gguf"]
    );

    assert_eq!(
        choose_file(None).expect("a model").projectors,
        ["mmproj-m-f16.gguf"]
    );
    assert!(matches!(
        choose_file(Some("Q2_K")),
        Err(ChoiceError::NoSuchFile { .. })
    ));
    let others = choose_file(None).expect("a model").others;
    assert_eq!(others.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    assert!(
        choose_file(Some("q8_0"))
            .expect("a model")
            .others
            .is_empty()
    );
}

#[test]
fn default_model_matches_llama_cpp() {
    let choose_from = |paths: &[&str]| {
        choose(&listing(paths), &Documents::default(), None)
            .map(|choice| (choice.files[0].path.clone(), choice.others.len()))
    };

    assert_eq!(
        choose_from(&["m-BF16.gguf", "m-Q8_0.gguf", "m-Q4_0.gguf"]),
        Ok(("m-Q8_0.gguf".into(), 2))
    );
    assert_eq!(
        choose_from(&["m-Q4_0.gguf", "m-Q5_0.gguf"]),
        Ok(("m-Q4_0.gguf".into(), 1))
    );

    // Draft models are neither chosen nor listed as alternatives.
    assert_eq!(
        choose_from(&["eagle3-m-Q4_K_M.gguf", "m-Q8_0.gguf"]),
        Ok(("m-Q8_0.gguf".into(), 0))
    );
    assert_eq!(choose_from(&["mtp-m.gguf"]), Ok(("mtp-m.gguf".into(), 0)));

    let named = choose(
        &listing(&["mtp-m.gguf", "m.gguf"]),
        &Documents::default(),
        Some("mtp-m.gguf"),
    );
    assert_eq!(
        named.map(|choice| choice.files[0].path.clone()).as_deref(),
        Ok("mtp-m.gguf")
    );
}

#[test]
fn dynamic_quantization_is_separate() {
    let files = listing(&[
        "m-Q4_K_M.gguf",
        "m-UD-Q4_K_M.gguf",
        "Q2_K/model.gguf",
        "m-Q8_0.gguf",
    ]);
    let choose_path = |file| {
        choose(&files, &Documents::default(), Some(file)).map(|choice| choice.files[0].path.clone())
    };

    assert_eq!(choose_path("Q4_K_M").as_deref(), Ok("m-Q4_K_M.gguf"));
    assert_eq!(choose_path("ud-q4_k_m").as_deref(), Ok("m-UD-Q4_K_M.gguf"));
    assert_eq!(choose_path("Q2_K").as_deref(), Ok("Q2_K/model.gguf"));
    let Err(ChoiceError::NoSuchFile { candidates, .. }) = choose_path("Q4_K_S") else {
        panic!("Q4_K_S is absent")
    };

    assert_eq!(candidates[0], "Q4_K_M", "the most similar name");
}

#[test]
fn ambiguous_quantization_lists_candidates() {
    let files = listing(&["a-Q8_0.gguf", "b-Q8_0.gguf"]);
    let error = choose(&files, &Documents::default(), Some("Q8_0"))
        .expect_err("two models")
        .to_string();
    assert!(error.contains("a-Q8_0.gguf, b-Q8_0.gguf"), "{error}");
}

#[test]
fn incomplete_split_is_error() {
    let files = listing(&["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"]);
    let error = choose(&files, &Documents::default(), None).expect_err("incomplete");
    assert!(
        error.to_string().contains("m-00002-of-00003.gguf"),
        "{error}"
    );
}

#[test]
fn file_matches_path_or_its_end() {
    let files = listing(&["sub/x.safetensors", "y.safetensors", "README.md"]);
    let choice = choose(&files, &Documents::default(), Some("x.safetensors")).expect("one file");
    assert_eq!(choice.files[0].path, "sub/x.safetensors");
    assert!(choose(&files, &Documents::default(), Some("README.md")).is_err());
    assert!(choose(&files, &Documents::default(), Some("z.safetensors")).is_err());
}

#[test]
fn modules_ask_for_pooling() {
    let entry =
        |class: &str| json!([{"path": "", "type": "Transformer"}, {"path": "1", "type": class}]);
    assert!(asks_for_pooling(&entry(
        "sentence_transformers.models.Pooling"
    )));
    assert!(!asks_for_pooling(&entry(
        "sentence_transformers.models.Dense"
    )));
    assert!(!asks_for_pooling(&json!({"type": "Pooling"})));
}
