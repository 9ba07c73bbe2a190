use burn::tensor::{Device, Int, Tensor, TensorData};
use limbic_llama::{
    Dropout, End, Generation, KvCache, Llama, LlamaError, Padding, Prompt, Sampling, generate,
};

use crate::{MODELS, Reference, distance, forward, host, numbers, read};

fn prompt(llama: &Llama, id: u64, tokens: &[u32]) -> Prompt {
    let shape = [1, tokens.len()];
    let tokens: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(tokens, shape), &Device::flex());
    Prompt {
        id,
        embeddings: llama.embed(ids).squeeze_dim(0),
        content: Vec::new(),
    }
}

/// The prompts of a reference file, of lengths 3, 8 and 2, and what transformers continued them with.
fn references(llama: &Llama, reference: &Reference) -> (Vec<Prompt>, Vec<Vec<u32>>) {
    let rows = reference.text["greedy"].as_array().unwrap();
    let prompts = rows.iter().zip(0..);
    (
        prompts
            .map(|(row, id)| prompt(llama, id, &numbers(&row["prompt"])))
            .collect(),
        rows.iter().map(|row| numbers(&row["tokens"])).collect(),
    )
}

#[test]
fn batched_greedy_text_is_that_of_transformers_alone() {
    for name in MODELS {
        let llama = read(name);
        let (prompts, wanted) = references(&llama, &Reference::read(name));
        let got = generate(&llama, &prompts, 12, &[], &Sampling::GREEDY).unwrap();
        for (got, tokens) in got.into_iter().zip(wanted) {
            let end = End::Length;
            assert_eq!(got, Generation { tokens, end }, "{name}");
        }
    }
}

#[test]
fn a_cache_changes_no_number() {
    let (llama, reference) = (read("untied"), Reference::read("untied"));
    let embeddings = llama.embed(reference.ids());
    let (whole, _) = forward(&llama, embeddings.clone());
    let [rows, slots, _] = embeddings.dims();
    let mut cache = KvCache::new(llama.config(), rows, slots, &Device::flex());
    let mut parts = Vec::new();
    for (start, length) in [(0, 4), (4, 1), (5, 3), (8, 1), (9, 2)] {
        let part = embeddings.clone().narrow(1, start, length);
        parts.push(llama.hidden(part, &Padding::Right, Some(&mut cache), Dropout::OFF));
    }
    assert_eq!(cache.length(), slots);
    let off = distance(&host(Tensor::cat(parts, 1)), &host(whole));
    assert!(off < 1e-5, "{off}");
}

#[test]
fn a_stopped_row_ends_there_and_disturbs_no_other() {
    let llama = read("untied");
    let (prompts, wanted) = references(&llama, &Reference::read("untied"));
    let stop = wanted[1][3];
    let got = generate(&llama, &prompts, 12, &[stop], &Sampling::GREEDY).unwrap();
    for (got, wanted) in got.iter().zip(&wanted) {
        match wanted.iter().position(|token| *token == stop) {
            Some(at) => {
                assert_eq!(got.end, End::Stop(stop));
                assert_eq!(got.tokens, wanted[..at]);
            }
            None => assert_eq!((got.end, &got.tokens), (End::Length, wanted)),
        }
    }
    assert!(matches!(got[1].end, End::Stop(_)));
    assert!(got.iter().any(|row| row.end == End::Length));
}

#[test]
fn sampled_text_depends_on_prompt_and_seed_alone() {
    let llama = read("untied");
    let (prompts, _) = references(&llama, &Reference::read("untied"));
    let sampling = |seed| Sampling {
        temperature: 1.5,
        top_p: 0.95,
        seed,
    };
    let together = generate(&llama, &prompts, 10, &[], &sampling(1)).unwrap();
    for (prompt, row) in prompts.iter().zip(&together).rev() {
        let alone = generate(&llama, std::slice::from_ref(prompt), 10, &[], &sampling(1)).unwrap();
        assert_eq!(&alone[0], row);
    }
    let other_seed = generate(&llama, &prompts, 10, &[], &sampling(2)).unwrap();
    assert_ne!(together, other_seed);
    let renamed = Prompt {
        id: 99,
        ..prompts[0].clone()
    };
    let renamed = generate(&llama, &[renamed], 10, &[], &sampling(1)).unwrap();
    assert_ne!(renamed[0], together[0]);
}

#[test]
fn unusable_prompts_are_refused_by_number() {
    let llama = read("untied");
    let full = prompt(&llama, 7, &[1; 60]);
    assert!(
        generate(
            &llama,
            std::slice::from_ref(&full),
            4,
            &[],
            &Sampling::GREEDY
        )
        .is_ok()
    );
    let error = generate(&llama, &[full], 5, &[], &Sampling::GREEDY).unwrap_err();
    assert!(
        matches!(
            error,
            LlamaError::PromptLength {
                id: 7,
                limit: 64,
                ..
            }
        ),
        "{error}"
    );
    let mut broken = prompt(&llama, 8, &[1, 2]);
    broken.embeddings = broken.embeddings * f32::NAN;
    let error = generate(&llama, &[broken], 5, &[], &Sampling::GREEDY).unwrap_err();
    assert!(
        matches!(error, LlamaError::NonFinite { id: 8, step: 0 }),
        "{error}"
    );
}
