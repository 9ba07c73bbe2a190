//! The Python names that a file of weights may mention. None of them is ever called: each stands for something that
//! is understood here, or for a value that holds no weights.

use crate::stored::StoredDtype;

/// What a Python name means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    /// `torch._utils._rebuild_tensor_v2` and the older form with fewer arguments.
    Tensor,
    /// `torch._utils._rebuild_tensor_v3`, for kinds of values that have no storage class.
    TypedTensor,
    /// `torch._utils._rebuild_parameter`: its first argument.
    Parameter,
    /// `torch._tensor._rebuild_from_type_v2`: its first argument, called with its third.
    FromType,
    /// A dictionary, empty or from pairs.
    Dict,
    /// `torch.Size`: its argument.
    Size,
    /// `torch.FloatStorage` and its like; without a kind, `torch.storage.UntypedStorage`.
    Storage(Option<StoredDtype>),
    /// `torch.float32` and its like.
    Dtype(StoredDtype),
    /// Something that holds no weights.
    Inert,
}

impl Global {
    pub(crate) fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::Tensor,
            ("torch._utils", "_rebuild_tensor_v3") => Self::TypedTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Self::Parameter
            }
            ("torch._tensor", "_rebuild_from_type_v2") => Self::FromType,
            ("collections", "OrderedDict" | "defaultdict")
            | ("builtins" | "__builtin__", "dict") => Self::Dict,
            ("torch", "Size") => Self::Size,
            ("torch.storage", "UntypedStorage") | ("torch", "UntypedStorage") => {
                Self::Storage(None)
            }
            ("torch", storage) if storage.ends_with("Storage") => {
                Self::Storage(Some(storage_dtype(storage)?))
            }
            ("torch", name) if torch_dtype(name).is_some() => Self::Dtype(torch_dtype(name)?),
            _ if is_inert(module, name) => Self::Inert,
            _ => return None,
        })
    }
}

fn storage_dtype(class: &str) -> Option<StoredDtype> {
    Some(match class {
        "DoubleStorage" => StoredDtype::F64,
        "FloatStorage" => StoredDtype::F32,
        "HalfStorage" => StoredDtype::F16,
        "BFloat16Storage" => StoredDtype::BF16,
        "LongStorage" => StoredDtype::I64,
        "IntStorage" => StoredDtype::I32,
        "ShortStorage" => StoredDtype::I16,
        "CharStorage" => StoredDtype::I8,
        "ByteStorage" => StoredDtype::U8,
        "BoolStorage" => StoredDtype::Bool,
        "ComplexFloatStorage" => StoredDtype::C64,
        "ComplexDoubleStorage" => StoredDtype::C128,
        _ => return None,
    })
}

fn torch_dtype(name: &str) -> Option<StoredDtype> {
    Some(match name {
        "float64" => StoredDtype::F64,
        "float32" => StoredDtype::F32,
        "float16" => StoredDtype::F16,
        "bfloat16" => StoredDtype::BF16,
        "float8_e4m3fn" => StoredDtype::F8E4M3,
        "float8_e5m2" => StoredDtype::F8E5M2,
        "float8_e8m0fnu" => StoredDtype::F8E8M0,
        "complex64" => StoredDtype::C64,
        "complex128" => StoredDtype::C128,
        "int64" => StoredDtype::I64,
        "int32" => StoredDtype::I32,
        "int16" => StoredDtype::I16,
        "int8" => StoredDtype::I8,
        "uint64" => StoredDtype::U64,
        "uint32" => StoredDtype::U32,
        "uint16" => StoredDtype::U16,
        "uint8" => StoredDtype::U8,
        "bool" => StoredDtype::Bool,
        _ => return None,
    })
}

/// Settings, counters and paths that training scripts save beside their weights.
fn is_inert(module: &str, name: &str) -> bool {
    match module {
        "torch" => matches!(name, "device" | "Tensor"),
        "torch.nn.parameter" => matches!(name, "Parameter" | "Buffer"),
        "builtins" | "__builtin__" => matches!(
            name,
            "set"
                | "frozenset"
                | "complex"
                | "slice"
                | "int"
                | "float"
                | "str"
                | "list"
                | "bytearray"
                | "object"
        ),
        "_codecs" => name == "encode",
        "copyreg" | "copy_reg" => name == "_reconstructor",
        "collections" => matches!(name, "Counter" | "deque"),
        "argparse" => name == "Namespace",
        "pathlib" => matches!(
            name,
            "Path" | "PosixPath" | "PurePosixPath" | "WindowsPath" | "PureWindowsPath"
        ),
        "datetime" => matches!(name, "datetime" | "timedelta" | "date"),
        "numpy" => matches!(name, "dtype" | "ndarray"),
        "numpy.core.multiarray" | "numpy._core.multiarray" => {
            matches!(name, "scalar" | "_reconstruct")
        }
        "typing" => name == "Any",
        "omegaconf.dictconfig" => name == "DictConfig",
        "omegaconf.listconfig" => name == "ListConfig",
        "omegaconf.base" => matches!(name, "ContainerMetadata" | "Metadata"),
        "omegaconf.nodes" => name.ends_with("Node"),
        _ => false,
    }
}
