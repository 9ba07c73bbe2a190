//! Every block's output and the logits: what another implementation is compared with.

use burn::tensor::{Int, Tensor, TensorData};

use crate::{Context, Dropout, Llama, LlamaError, Padding};

/// What a decoder computes for rows of token ids. Letters: B rows, L slots, D width, V vocabulary.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// `[B, L, D]` each, with the meaning of transformers' `output_hidden_states`: the embeddings, the output of each
    /// block but the last, and that of the last behind the final norm.
    pub hidden: Vec<Tensor<3>>,
    /// `[B, L, V]`
    pub logits: Tensor<3>,
}

impl Llama {
    /// Runs the model on rows of token ids of one length. What stands in padded slots means nothing.
    ///
    /// # Errors
    /// Rows of several lengths or of none, ids outside the vocabulary, more slots than the model has positions.
    pub fn inspect(&self, rows: &[Vec<u32>], padding: &Padding) -> Result<Inspection, LlamaError> {
        let slots = self.check_rows(rows, padding)?;
        let device = self.model.embed_tokens.weight.lazy_device();
        let ids: Vec<i64> = rows.iter().flatten().map(|id| i64::from(*id)).collect();
        let ids = TensorData::new(ids, [rows.len(), slots]);
        let embeddings = self.embed(Tensor::<2, Int>::from_data(ids, &device));
        let context = Context::new(self.config(), 0, slots, padding, Dropout::OFF, &device);

        let mut hidden = vec![embeddings];
        for block in &self.model.layers {
            let x = hidden[hidden.len() - 1].clone();
            hidden.push(block.forward(x, &context, None));
        }
        let last = hidden.pop().expect("the embeddings were put in");
        let [batch, slots, width] = last.dims();
        let logits = self.logits(last.clone().reshape([batch * slots, width]), Dropout::OFF);
        hidden.push(self.norm(last));
        let vocabulary = logits.dims()[1];
        Ok(Inspection {
            hidden,
            logits: logits.reshape([batch, slots, vocabulary]),
        })
    }

    fn check_rows(&self, rows: &[Vec<u32>], padding: &Padding) -> Result<usize, LlamaError> {
        let wrong = |detail: String| Err(LlamaError::Ids(detail));
        let config = self.config();
        let slots = rows.first().map_or(0, Vec::len);
        let longest = padding.longest(slots);
        if longest == 0 || longest > config.max_position_embeddings {
            return wrong(format!(
                "{longest} in a row, wanted 1 to {} (`max_position_embeddings`)",
                config.max_position_embeddings
            ));
        }
        for (index, row) in rows.iter().enumerate() {
            if row.len() != slots {
                return wrong(format!(
                    "row {index} has {}, row 0 has {slots}; pad them to one length",
                    row.len()
                ));
            }
            if let Some(id) = row.iter().find(|id| **id as usize >= config.vocab_size) {
                return wrong(format!(
                    "row {index} holds {id}, wanted less than {} (`vocab_size`)",
                    config.vocab_size
                ));
            }
        }
        match padding {
            Padding::Left(pads) if pads.len() != rows.len() => wrong(format!(
                "{} rows, but the padding is for {}",
                rows.len(),
                pads.len()
            )),
            Padding::Packed(lengths)
                if rows.len() != 1 || lengths.iter().sum::<usize>() != slots =>
            {
                wrong(format!(
                    "{} rows of {slots} slots, but packed samples of {lengths:?} slots, which are one row",
                    rows.len()
                ))
            }
            _ => Ok(slots),
        }
    }
}
