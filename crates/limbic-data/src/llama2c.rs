//! The tokenizer of llama2.c (`tokenizer.bin`, `tok512.bin`): pieces of text with scores, merged greedily.
//!
//! Its `encode` joins the two neighbours whose concatenation is the piece of the highest score, the first of equals,
//! until none is left. That is byte-pair encoding with one merge for every way to split a piece, in the order of the
//! pieces' scores; a tokenizer of Hugging Face's format is built of that.

use std::path::Path;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::Prepend;
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, Tokenizer};

use crate::{DataError, TextTokenizer};

/// The first pieces of every such file: SentencePiece's special tokens, by the names they have elsewhere.
const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];
/// One piece for each byte follows, `<0x00>` to `<0xFF>`.
const BYTES: usize = 256;

impl TextTokenizer {
    /// Reads a tokenizer of llama2.c as one of Hugging Face's format, which gives the same ids.
    ///
    /// # Errors
    /// An unreadable or damaged file.
    pub fn read_llama2c(path: &Path) -> Result<Self, DataError> {
        let bytes = std::fs::read(path)
            .map_err(|error| DataError::io("read the tokenizer", path, error))?;
        let wrong = |detail: String| DataError::Tokenizer {
            detail: format!("`{}` is no tokenizer of llama2.c: {detail}", path.display()),
        };
        let pieces = pieces(&bytes).map_err(wrong)?;
        let inner = build(&pieces).map_err(|error| wrong(error.to_string()))?;
        Ok(Self::new(inner, 1, 2))
    }
}

struct Piece {
    text: String,
    score: f32,
}

/// Longest piece, then for each of them its score, its length and its bytes.
fn pieces(bytes: &[u8]) -> Result<Vec<Piece>, String> {
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).ok_or("it ends within a piece")?;
        Ok::<_, String>([word[0], word[1], word[2], word[3]])
    };
    let mut pieces = Vec::new();
    let mut at = 4;
    while at < bytes.len() {
        let score = f32::from_le_bytes(word(at)?);
        let length = u32::from_le_bytes(word(at + 4)?) as usize;
        let text = bytes
            .get(at + 8..)
            .and_then(|rest| rest.get(..length))
            .ok_or("it ends within a piece")?;
        let text =
            std::str::from_utf8(text).map_err(|error| format!("a piece is no text: {error}"))?;
        if !score.is_finite() {
            return Err(format!("piece {text:?} has the score {score}"));
        }
        let text = match SPECIAL.get(pieces.len()) {
            // The file has them between line breaks, so that no text is merged to one.
            Some(special) if text.trim() == *special => special.to_string(),
            Some(special) => {
                return Err(format!(
                    "piece {} is {text:?}, wanted {special:?}",
                    pieces.len()
                ));
            }
            None => text.to_string(),
        };
        at += 8 + length;
        pieces.push(Piece { text, score });
    }
    let reserved = SPECIAL.len() + BYTES;
    if pieces.len() < reserved {
        return Err(format!(
            "{} pieces, wanted at least {reserved}",
            pieces.len()
        ));
    }
    for (byte, piece) in pieces[SPECIAL.len()..reserved].iter().enumerate() {
        let wanted = format!("<0x{byte:02X}>");
        if piece.text != wanted {
            return Err(format!(
                "piece {:?} stands where {wanted} belongs",
                piece.text
            ));
        }
    }
    Ok(pieces)
}

fn build(pieces: &[Piece]) -> tokenizers::Result<Tokenizer> {
    let mut vocabulary = Vocab::default();
    for (piece, id) in pieces.iter().zip(0..) {
        // Of two equal pieces llama2.c's search may find either; no published file has them.
        if vocabulary.insert(piece.text.clone(), id).is_some() {
            return Err(format!("piece {:?} is there twice", piece.text).into());
        }
    }
    let mut merged: Vec<&Piece> = pieces[SPECIAL.len() + BYTES..].iter().collect();
    merged.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut merges = Merges::new();
    for Piece { text, .. } in merged {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if vocabulary.contains_key(left) && vocabulary.contains_key(right) {
                merges.push((left.to_string(), right.to_string()));
            }
        }
    }
    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .unk_token(SPECIAL[0].into())
        .byte_fallback(true)
        .build()?;
    let mut tokenizer = Tokenizer::new(ModelWrapper::BPE(model));
    // SentencePiece's dummy prefix.
    tokenizer.with_normalizer(Some(NormalizerWrapper::Prepend(Prepend::new(" ".into()))));
    tokenizer.with_decoder(Some(DecoderWrapper::Sequence(Sequence::new(vec![
        DecoderWrapper::ByteFallback(ByteFallback::new()),
        DecoderWrapper::Fuse(Fuse::new()),
        DecoderWrapper::Strip(Strip::new(' ', 1, 0)),
    ]))));
    tokenizer.add_special_tokens(&SPECIAL.map(|special| AddedToken::from(special, true)));
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Special pieces, bytes, and then these with falling scores.
    fn file(pieces: &[&str]) -> Vec<u8> {
        let bytes = (0..BYTES).map(|byte| format!("<0x{byte:02X}>"));
        let specials = ["<unk>", "\n<s>\n", "\n</s>\n"].map(String::from);
        let rest = pieces.iter().map(|piece| piece.to_string());
        let mut file = 9u32.to_le_bytes().to_vec();
        for (index, piece) in specials.into_iter().chain(bytes).chain(rest).enumerate() {
            file.extend((-(index as f32)).to_le_bytes());
            file.extend((piece.len() as u32).to_le_bytes());
            file.extend(piece.bytes());
        }
        file
    }

    fn read(bytes: &[u8]) -> Result<TextTokenizer, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tok.bin");
        std::fs::write(&path, bytes).unwrap();
        TextTokenizer::read_llama2c(&path)
    }

    #[test]
    fn the_highest_score_is_merged_first() {
        let tokenizer = read(&file(&["bc", "ab", "abc", " ", "a", "b", "c"])).unwrap();
        let id = |index: u32| 259 + index;
        // `bc` before `ab`, then `a` + `bc`; the blank is the dummy prefix.
        assert_eq!(tokenizer.encode("abc").unwrap(), [id(3), id(2)]);
        assert_eq!(tokenizer.encode("abab").unwrap(), [id(3), id(1), id(1)]);
        // `é` is no piece: its bytes are.
        assert_eq!(tokenizer.encode("é").unwrap(), [id(3), 3 + 0xC3, 3 + 0xA9]);
        assert_eq!(
            tokenizer
                .decode(&[1, id(3), 3 + 0xC3, 3 + 0xA9, 2])
                .unwrap(),
            "é"
        );
        assert_eq!((tokenizer.bos, tokenizer.eos), (1, 2));
        assert_eq!(tokenizer.encode("").unwrap(), [0u32; 0]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let whole = file(&["a"]);
        for (bytes, part) in [
            (&whole[..whole.len() - 1], "ends within a piece"),
            (&whole[..40], "ends within a piece"),
            (&file(&["a", "a"]), "twice"),
            (&whole[..4], "0 pieces"),
            (&[&whole[..4], &whole[17..]].concat(), "wanted \"<unk>\""),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("tok.bin"), "{error}");
        }
    }
}
