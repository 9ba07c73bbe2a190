/// Where a traversal stands in a module, and what PyTorch would call the parameter there.
///
/// Feed it from `enter_module` and `exit_module` of a burn visitor or mapper.
#[derive(Debug, Default, Clone)]
pub struct ModulePath {
    /// Field name and burn's container type (`Struct:Linear`), outermost first.
    frames: Vec<(String, String)>,
}

impl ModulePath {
    /// Goes down into field `name` of a container.
    pub fn enter(&mut self, name: &str, container: &str) {
        self.frames.push((name.to_string(), container.to_string()));
    }

    /// Comes back up.
    pub fn exit(&mut self) {
        self.frames.pop();
    }

    /// The parameter's name: the path joined by dots. Enum variants leave no trace, since which
    /// encoder or projector stands in a slot is the config's word; a norm's `gamma` and `beta` are
    /// `weight` and `bias`.
    pub fn name(&self) -> String {
        let parts: Vec<&str> = self
            .frames
            .iter()
            .filter(|(_, container)| !container.starts_with("Enum:"))
            .map(
                |(name, container)| match (name.as_str(), container.as_str()) {
                    ("gamma", "Struct:LayerNorm") => "weight",
                    ("beta", "Struct:LayerNorm") => "bias",
                    (name, _) => name,
                },
            )
            .collect();
        parts.join(".")
    }

    /// Whether the value lies as `[in, out]` in memory where PyTorch has `[out, in]`: the weight of
    /// burn's own `Linear`.
    pub fn is_transposed(&self) -> bool {
        matches!(self.frames.last(), Some((name, container)) if name == "weight" && container == "Struct:Linear")
    }

    /// Whether this is the weight of a layer that multiplies (as against an embedding or a norm).
    pub(crate) fn is_linear_weight(&self) -> bool {
        matches!(self.frames.last(), Some((name, container))
            if name == "weight" && (container.ends_with("Linear") || container.contains("Conv")))
    }
}
