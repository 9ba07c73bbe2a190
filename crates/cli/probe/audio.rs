//! An audio encoder, run over sound.

use burn::tensor::Device;
use limbic_data::{Span, read_waveform};
use limbic_encoders::{AudioArchitecture, AudioInput, AudioModel};
use limbic_train::RunError;

use super::input::{InputFile, whole_tensor};
use super::numbers::Numbers;
use super::{hidden_states, is_encoder, keep, wanted};
use crate::args::ProbeArgs;

pub(super) fn run(args: &ProbeArgs, device: &Device) -> anyhow::Result<Numbers> {
    is_encoder(args)?;
    let model = AudioModel::read(&args.model, device)?;
    let reads_features = match model.architecture() {
        AudioArchitecture::Whisper | AudioArchitecture::ImageBind => true,
        AudioArchitecture::Wav2Vec2 | AudioArchitecture::Hubert | AudioArchitecture::WavLM => false,
    };
    let input = if let Some(path) = args.audio.as_ref().or(args.video.as_ref()) {
        let rate = model.sample_rate();
        let Some(sound) = read_waveform(path, Span::ALL, rate)? else {
            return Err(RunError::recipe(format!("{} has no sound", path.display())));
        };
        model.preprocess(&sound.samples, sound.sample_rate)?
    } else if let Some(path) = &args.input {
        let file = InputFile::read(path)?;
        if reads_features {
            let meaning = "three dimensions: sounds, mel bands, frames";
            AudioInput::Features(file.numbers("input_features", meaning, device)?)
        } else {
            let meaning = "two dimensions: sounds, samples";
            let mask = file.whole("attention_mask")?;
            AudioInput::Values {
                values: file.numbers("input_values", meaning, device)?,
                attention_mask: mask.map(|mask| whole_tensor(&mask, device)),
            }
        }
    } else {
        let flags = "--audio, --video or --input with `input_values` or `input_features`";
        return Err(wanted(args, "an audio encoder", flags));
    };
    let states = model.forward(input, keep(args.layers))?;
    Ok(hidden_states(states, args.layers))
}
