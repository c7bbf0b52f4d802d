//! Walks over made files. The lengths come from `model_spec.py` of CTranslate2 4.8.5, which wrote
//! models of the same shapes.

use super::sample::{SampleFile, WhisperSizes};
use super::*;
use crate::model::Dtype;
use crate::model::architecture::{Mixer, Span};

/// Walks over `file` and returns the result and the number of windows.
fn walk(file: &SampleFile, reading: Reading) -> Result<(Walked, u32), ModelBinError> {
    let mut walk = Walk::new(file.length, reading);
    let mut windows = 0;
    while let Some(Window { start, bytes }) = walk.window() {
        windows += 1;
        assert!(windows < 10_000, "the walk ends");
        walk.feed(&file.window(start, bytes))?;
    }

    walk.finish().map(|walked| (walked, windows))
}

fn every_header(file: &SampleFile) -> Walked {
    walk(file, Reading::EveryHeader).expect("a model").0
}

#[test]
fn lengths_equal_the_converter() {
    // (weights, others, length of model.bin): specs.WhisperSpec(2, 4, 3, 4), width 64, 256, 512
    // tokens, 80 mels, `optimize(quantization)`, `save`.
    let written = [
        (Dtype::F32, Dtype::F32, 1_948_238),
        (Dtype::F16, Dtype::F16, 976_846),
        (Dtype::I8, Dtype::F32, 901_258),
        (Dtype::I8, Dtype::F16, 640_522),
        (Dtype::I16, Dtype::F32, 1_239_434),
    ];

    for (weights, others, length) in written {
        let file = WhisperSizes::SMALLEST.stored_as(weights, others).file();
        assert_eq!(file.length, length, "{weights} {others}");
    }
}

#[test]
fn every_byte_is_accounted_for() {
    let sizes = WhisperSizes::SMALLEST.stored_as(Dtype::I8, Dtype::F16);
    let walked = every_header(&sizes.file());

    assert_eq!((walked.variables, walked.read), (138, 138));
    assert_eq!(walked.uncovered_bytes, 0);
    assert_eq!(walked.inventory.tensors(), 138);
    assert_eq!(walked.model.attributes.get("decoder/num_heads"), Some(&4));
    assert_eq!(
        walked.model.aliases.get("decoder/projection/weight"),
        Some(&"decoder/embeddings/weight".to_owned())
    );
}

#[test]
fn predictions_equal_the_whole_walk() {
    let sizes = [
        WhisperSizes::LARGE_V3,
        WhisperSizes::LARGE_V3.stored_as(Dtype::I8, Dtype::F16),
        WhisperSizes::TURBO,
        WhisperSizes::DISTIL_LARGE_V3,
        WhisperSizes::TINY,
        WhisperSizes::SMALLEST,
        WhisperSizes {
            encoder_layers: 7,
            decoder_layers: 5,
            ..WhisperSizes::TINY
        },
    ];

    for sizes in sizes {
        let file = sizes.file();
        let (predicted, windows) = walk(&file, Reading::Predicted).expect("a model");
        let mut whole = every_header(&file);
        assert_eq!(predicted.inventory, whole.inventory, "{sizes:?}");
        whole.read = predicted.read;
        assert_eq!(predicted, whole, "{sizes:?}");

        let published = sizes.encoder_layers != 7;
        assert!(windows <= 32 || !published, "{windows} for {sizes:?}");
    }
}

#[test]
fn changed_layer_defeats_the_prediction() {
    // A byte is inserted in a layer that is skipped, so all that follows moves.
    let file = WhisperSizes::TINY.file();
    let moved = SampleFile {
        written: file
            .written
            .iter()
            .map(|(offset, bytes)| {
                let is_behind = *offset > file.length / 3;
                (offset + u64::from(is_behind), bytes.clone())
            })
            .collect(),
        length: file.length + 1,
    };

    for reading in [Reading::Predicted, Reading::EveryHeader] {
        assert!(walk(&moved, reading).is_err(), "{reading:?}");
    }
}

#[test]
fn other_ends_are_found() {
    let file = WhisperSizes::SMALLEST.file();
    let longer = SampleFile {
        length: file.length + 3,
        ..file.clone()
    };
    assert_eq!(every_header(&longer).uncovered_bytes, 3);

    for length in [0, 1, 30, 600, file.length / 2, file.length - 1] {
        let cut = SampleFile {
            length,
            ..file.clone()
        };
        let error = walk(&cut, Reading::EveryHeader).expect_err("too short");
        assert!(
            error.to_string().contains("download is incomplete"),
            "{error}"
        );
    }
}

#[test]
fn contradictions_are_rejected() {
    let file = WhisperSizes::SMALLEST.file();
    let broken = |offset: u64, bytes: &[u8]| {
        let mut broken = file.clone();
        broken.written.push((offset, bytes.to_vec()));
        walk(&broken, Reading::EveryHeader)
            .expect_err("broken")
            .to_string()
    };

    // Version, the specification's length, the number of variables, the first name's length.
    assert!(broken(0, &7_u32.to_le_bytes()).contains("binary version 7"));
    assert!(broken(4, &[0, 0]).contains("not a name"));
    assert!(broken(22, &u32::MAX.to_le_bytes()).contains("4294967295 variables"));
    assert!(broken(26, &[255, 255]).contains("not a name"));

    // The first variable is decoder/activation: its rank, its type, its bytes.
    assert!(broken(47, &[9]).contains("'decoder/activation': it has more dimensions"));
    assert!(broken(48, &[6]).contains("its type"));
    assert!(broken(49, &[2]).contains("its bytes are not those"));
}

#[test]
fn architecture_follows_from_shapes() {
    let walked = every_header(&WhisperSizes::TURBO.file());
    let architecture = whisper::architecture(&walked.model, &walked.inventory).expect("Whisper");

    assert_eq!(
        (
            architecture.hidden_size,
            architecture.intermediate_size,
            architecture.vocab_size,
            architecture.layer_count(),
            architecture.max_context,
            architecture.encoder.map(|encoder| encoder.layers),
            whisper::encoder_heads(&architecture),
        ),
        (1280, 5120, 51_866, 4, Some(448), Some(32), Some(20))
    );
    assert!(architecture.mixers(0..4).any(|mixer| matches!(
        mixer,
        Mixer::Attention(attention)
            if attention.span == Span::Cross { tokens: 1500 } && attention.key_dim == 64
    )));
    assert_eq!(architecture.quantization, None);
}

#[test]
fn quantization_is_the_stored_type() {
    let names = [
        (Dtype::I8, Dtype::F16, Some("int8_float16")),
        (Dtype::I8, Dtype::BF16, Some("int8_bfloat16")),
        (Dtype::I8, Dtype::F32, Some("int8_float32")),
        (Dtype::I16, Dtype::F32, Some("int16")),
        (Dtype::BF16, Dtype::BF16, None),
    ];

    for (weights, others, name) in names {
        let walked = every_header(&WhisperSizes::SMALLEST.stored_as(weights, others).file());
        let architecture =
            whisper::architecture(&walked.model, &walked.inventory).expect("Whisper");
        let quantization = architecture.quantization.map(|method| method.method);
        assert_eq!(quantization.as_deref(), name);
        assert_eq!(architecture.dtype, Some(others));
    }
}

#[test]
fn negative_heads_are_named_so() {
    let mut walked = every_header(&WhisperSizes::SMALLEST.file());
    let heads = "decoder/num_heads".to_owned();
    walked.model.attributes.insert(heads, -4);
    let why = whisper::architecture(&walked.model, &walked.inventory).expect_err("refused");

    assert!(why.to_string().contains("-4"), "{why}");
}

#[test]
fn other_specifications_are_named() {
    let refused = |spec: &str, revision| {
        let file = WhisperSizes::SMALLEST.file_of(spec, revision);
        let walked = every_header(&file);
        let why = whisper::architecture(&walked.model, &walked.inventory).expect_err("refused");
        (why.to_string(), walked)
    };

    let (why, walked) = refused("TransformerSpec", 7);
    assert!(
        why.starts_with("TransformerSpec (CTranslate2): ") && why.contains("translation models"),
        "{why}"
    );
    assert!(!walked.is_understood);
    assert_eq!(walked.inventory.bytes().get(), 976_850);

    let (why, _) = refused("WhisperSpec", 4);
    assert!(why.contains("revision 4 is newer than 3"), "{why}");
}

#[test]
fn damaged_files_end_the_walk() {
    let sizes = WhisperSizes {
        width: 4,
        feed_forward: 8,
        heads: 2,
        vocabulary: 40,
        mels: 2,
        positions: 8,
        ..WhisperSizes::SMALLEST
    };
    let file = sizes.stored_as(Dtype::I8, Dtype::F16).file();
    let whole = file.window(0, file.length);
    let mut random = 1_u64;
    let mut next = |bound: usize| {
        // Knuth's MMIX generator; its high bits are random enough.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % bound
    };

    let mut outcomes = [0_u32; 2];
    for _ in 0..2000 {
        let mut bytes = whole.clone();
        for _ in 0..=next(3) {
            let place = next(bytes.len());
            bytes[place] = u8::try_from(next(256)).unwrap();
        }

        let damaged = SampleFile {
            length: file.length,
            written: vec![(0, bytes)],
        };
        for reading in [Reading::EveryHeader, Reading::Predicted] {
            let walked = walk(&damaged, reading);
            outcomes[usize::from(walked.is_ok())] += 1;
            if let Ok((walked, _)) = walked {
                let _ = whisper::architecture(&walked.model, &walked.inventory);
            }
        }
    }

    assert!(outcomes.iter().all(|count| *count > 100), "{outcomes:?}");
}

#[test]
fn files_are_recognized_by_content() {
    let file = WhisperSizes::SMALLEST.file();
    assert!(is_model_bin(&file.window(0, PREFIX_BYTES)));

    for other in [
        &b"PK\x03\x04\x00\x00\x00\x00archive"[..],
        b"\x80\x02}q\x00X\x04\x00",
        b"",
        b"\x06\0\0\0\x03\0ab",
        b"\x06\0\0\0\x03\0ab\0",
        b"\x06\x01\0\0\x05\0Spec\0",
    ] {
        assert!(!is_model_bin(other), "{other:?}");
    }
}
