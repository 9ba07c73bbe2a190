use burn::tensor::Tensor;

/// What a pretrained transformer encoder gives, in transformers' terms.
#[derive(Debug, Clone)]
pub struct HiddenStates {
    /// `hidden.0 ..= hidden.N` as `output_hidden_states=True` lists them, each `[B, L, D]`; the earlier ones are
    /// absent where [`Keep`] did not ask for them.
    pub hidden: Vec<Tensor<3>>,
    /// `[B, L, D]`, after the final norm where the model has one.
    pub last_hidden_state: Tensor<3>,
    /// `[B, Dp]`, where the model pools.
    pub pooled: Option<Tensor<2>>,
}

/// How many hidden states are kept; each costs as much memory as the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All of them, the embeddings first.
    All,
    /// The last so many.
    Last(usize),
}

impl Keep {
    /// Takes up the next state, and lets go of the oldest where there are too many.
    pub(crate) fn push(self, hidden: &mut Vec<Tensor<3>>, state: &Tensor<3>) {
        match self {
            Self::All => hidden.push(state.clone()),
            Self::Last(0) => {}
            Self::Last(most) => {
                if hidden.len() == most {
                    hidden.remove(0);
                }
                hidden.push(state.clone());
            }
        }
    }
}
