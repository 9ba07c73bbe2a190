//! Text to token ids and back: a thin wrapper that fixes what the prompt compiler relies on, namely that no
//! special token enters unasked and that begin and end of sequence are known.

use std::path::Path;

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, PreTokenizerWrapper, Tokenizer};

use crate::DataError;

/// A tokenizer of Hugging Face's format with its begin and end tokens.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    /// First token of every sequence.
    pub bos: u32,
    /// Token that ends an answer.
    pub eos: u32,
}

const BOS: &str = "<s>";
const EOS: &str = "</s>";

impl TextTokenizer {
    /// Trains a byte-level BPE tokenizer (GPT-2's kind: no text is unknown to it) on `texts`.
    ///
    /// The same texts give the same tokenizer.
    ///
    /// # Errors
    /// A vocabulary too small for the 256 bytes and two special tokens.
    pub fn train(texts: &[String], vocab_size: usize) -> Result<Self, DataError> {
        const SMALLEST: usize = 256 + 2;
        if vocab_size < SMALLEST {
            return Err(tokenizer_error(format!(
                "a vocabulary of {vocab_size} was asked for; byte-level BPE needs at least {SMALLEST}"
            )));
        }
        let trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocab_size)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(
                [BOS, EOS]
                    .map(|token| AddedToken::from(token, true))
                    .to_vec(),
            )
            .build();
        let mut inner = Tokenizer::new(ModelWrapper::BPE(BPE::default()));
        let byte_level = ByteLevel::new(false, true, true);
        inner.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(byte_level)));
        inner.with_decoder(Some(DecoderWrapper::ByteLevel(byte_level)));
        inner
            .train(&mut TrainerWrapper::BpeTrainer(trainer), texts.iter())
            .map_err(|error| tokenizer_error(format!("training failed: {error}")))?;
        Self::with_special(inner, BOS, EOS)
    }

    /// Reads `tokenizer.json`; `bos` and `eos` are the ids that the model's `config.json` names.
    ///
    /// # Errors
    /// An unreadable file, or ids outside its vocabulary.
    pub fn read(path: &Path, bos: u32, eos: u32) -> Result<Self, DataError> {
        let bytes = std::fs::read(path)
            .map_err(|error| DataError::io("read the tokenizer", path, error))?;
        let inner = Tokenizer::from_bytes(bytes).map_err(|error| {
            tokenizer_error(format!(
                "`{}` is no tokenizer.json: {error}",
                path.display()
            ))
        })?;
        for (name, id) in [("bos_token_id", bos), ("eos_token_id", eos)] {
            if inner.id_to_token(id).is_none() {
                return Err(tokenizer_error(format!(
                    "`{name}` is {id}, but `{}` has {} tokens; config.json and tokenizer.json are not of one model",
                    path.display(),
                    inner.get_vocab_size(true)
                )));
            }
        }
        Ok(Self::new(inner, bos, eos))
    }

    pub(crate) fn new(mut inner: Tokenizer, bos: u32, eos: u32) -> Self {
        inner.set_encode_special_tokens(true);
        Self { inner, bos, eos }
    }

    fn with_special(inner: Tokenizer, bos: &str, eos: &str) -> Result<Self, DataError> {
        let id = |token: &str| {
            inner
                .token_to_id(token)
                .ok_or_else(|| tokenizer_error(format!("no token `{token}`")))
        };
        let (bos, eos) = (id(bos)?, id(eos)?);
        Ok(Self::new(inner, bos, eos))
    }

    /// The text of `tokenizer.json`.
    ///
    /// # Errors
    /// When the tokenizer cannot be serialised.
    pub fn to_json(&self) -> Result<String, DataError> {
        self.inner
            .to_string(true)
            .map_err(|error| tokenizer_error(error.to_string()))
    }

    /// Token ids of `text` with the special tokens that `tokenizer.json` puts around it, as transformers calls a tokenizer.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encoding = self
            .inner
            .encode_fast(text, true)
            .map_err(|error| tokenizer_error(format!("cannot encode {text:?}: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of `text`, special tokens neither added nor recognised: a transcript that spells `</s>` is text.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|error| tokenizer_error(format!("cannot encode {text:?}: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, special tokens left out.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        self.inner
            .decode(ids, true)
            .map_err(|error| tokenizer_error(format!("cannot decode {ids:?}: {error}")))
    }

    /// Number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

fn tokenizer_error(detail: String) -> DataError {
    DataError::Tokenizer { detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<String> {
        [
            "the brows are raised",
            "the voice is loud and high",
            "they sound happy",
        ]
        .map(String::from)
        .to_vec()
    }

    #[test]
    fn any_text_survives_and_training_repeats_itself() {
        let tokenizer = TextTokenizer::train(&texts(), 300).unwrap();
        for text in ["the voice is happy", "Wut, Ärger; 愤怒 \u{1f600}\n x"] {
            assert_eq!(
                tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(),
                text
            );
        }
        let again = TextTokenizer::train(&texts(), 300).unwrap();
        assert_eq!(tokenizer.to_json().unwrap(), again.to_json().unwrap());
        assert_eq!((tokenizer.bos, tokenizer.eos), (0, 1));
    }

    #[test]
    fn a_spelt_out_special_token_is_text() {
        let tokenizer = TextTokenizer::train(&texts(), 300).unwrap();
        let ids = tokenizer.encode("a</s>b<s>").unwrap();
        assert!(!ids.contains(&tokenizer.eos) && !ids.contains(&tokenizer.bos));
        assert_eq!(tokenizer.decode(&ids).unwrap(), "a</s>b<s>");
    }

    #[test]
    fn files_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let tokenizer = TextTokenizer::train(&texts(), 300).unwrap();
        std::fs::write(&path, tokenizer.to_json().unwrap()).unwrap();
        let read = TextTokenizer::read(&path, 0, 1).unwrap();
        assert_eq!(
            read.encode("loud").unwrap(),
            tokenizer.encode("loud").unwrap()
        );
        assert!(
            TextTokenizer::read(&path, 0, 9999)
                .unwrap_err()
                .to_string()
                .contains("9999")
        );
        assert!(
            TextTokenizer::train(&texts(), 10)
                .unwrap_err()
                .to_string()
                .contains("258")
        );
    }
}
