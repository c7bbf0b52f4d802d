//! Real GGUF headers and vocabularies from the optional corpus.
//!
//! Without the corpus, the tests do nothing.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use hf_mem_core::model::architecture::{Architecture, Attention, Mixer, Recurrent, Span};
use hf_mem_core::model::gguf::{Content, Progress, architecture, parse};
use support::gguf_corpus::{corpus, descriptions, header, parsed, real_headers, whole};

mod support {
    pub mod gguf_corpus;
    pub mod gguf_writer;
}

#[test]
fn real_headers_match_to_the_byte() {
    let Some(corpus) = corpus() else { return };
    for (name, bytes, length) in real_headers(&corpus) {
        let gguf = whole(&bytes, length);
        assert_eq!(gguf.header_bytes, bytes.len() as u64, "{name}");
        assert_eq!(gguf.header_bytes + gguf.data_bytes.get(), length, "{name}");
        assert_eq!(gguf.content(), Content::Model, "{name}");

        assert!(
            serde_json::to_string(&gguf).unwrap().len() < 16_384,
            "{name} is small when stored"
        );
        architecture(&gguf).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

#[test]
fn growing_prefixes_reach_the_header() {
    let Some(corpus) = corpus() else { return };
    for (name, bytes, length) in real_headers(&corpus) {
        let (mut have, mut rounds) = (1 << 16, 0);
        loop {
            rounds += 1;
            match parse(bytes.get(..have).unwrap_or(&bytes), Some(length)).unwrap() {
                Progress::Complete(_) => break,
                Progress::NeedMore { at_least } => {
                    assert!(
                        at_least <= bytes.len() as u64 && at_least > have as u64,
                        "{name}"
                    );
                    have = usize::try_from(at_least).unwrap().max(have * 2);
                }
            }
        }

        assert!(rounds < 12, "{name}: {rounds} rounds");
    }
}

#[test]
fn vocabularies_are_not_models() {
    let Some(corpus) = corpus() else { return };
    for entry in std::fs::read_dir(corpus.join("vocab")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let gguf = whole(&bytes, bytes.len() as u64);
        assert_eq!(gguf.content(), Content::Vocabulary, "{}", path.display());
        assert!(gguf.vocabulary().unwrap() > 1000);
    }
}

/// Returns KV heads, key dimension and span of a layer with attention.
fn attention_heads(known: &Architecture, layer: usize) -> Option<(u64, u64, Span)> {
    match &known.layers[layer].mixer {
        Mixer::Attention(Attention {
            kv_heads,
            key_dim,
            span,
            ..
        }) => Some((*kv_heads, *key_dim, *span)),
        _ => None,
    }
}

#[test]
fn described_files_have_architectures() {
    let Some(corpus) = corpus() else { return };
    for (name, description) in descriptions(&corpus) {
        let gguf = parsed(&header(&description));
        let known = architecture(&gguf).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(
            known.class,
            description["architecture"].as_str().unwrap(),
            "{name}"
        );

        match known.class.as_str() {
            "gpt-oss" => {
                assert_eq!(
                    attention_heads(&known, 0),
                    Some((8, 64, Span::Sliding { window: 128 }))
                );
                assert_eq!(attention_heads(&known, 1), Some((8, 64, Span::Full)));
            }
            "jamba" => {
                assert_eq!(attention_heads(&known, 4), Some((8, 128, Span::Full)));
                let state = Mixer::Recurrent(Recurrent::Mamba1 {
                    inner: 8192,
                    state: 16,
                    conv: 4,
                });
                assert_eq!(known.layers[0].mixer, state);
            }
            "glm4moe" => assert_eq!((known.layers.len(), known.mtp_layers), (46, 1)),
            "phi3" => assert_eq!(attention_heads(&known, 0), Some((10, 128, Span::Full))),
            "deepseek2" => assert!(
                matches!(&known.layers[0].mixer, Mixer::Latent(latent) if latent.nope_dim == 128)
            ),
            _ => {}
        }
    }
}
