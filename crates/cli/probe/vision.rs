//! A vision encoder, run over pictures.

use std::path::Path;

use burn::tensor::Device;
use limbic_data::{FrameSampler, Span, read_pictures};
use limbic_encoders::vision::{Picture, PixelValues, VisionModel};
use limbic_train::RunError;

use super::input::InputFile;
use super::numbers::Numbers;
use super::{hidden_states, is_encoder, keep, wanted};
use crate::args::ProbeArgs;

/// Frames of a video that a model of pictures is shown, spread evenly.
const FRAMES: usize = 8;

pub(super) fn run(args: &ProbeArgs, device: &Device) -> anyhow::Result<Numbers> {
    is_encoder(args)?;
    let of_video = "a model of video";
    let model = VisionModel::read(&args.model, device)?;
    let num_frames = model.sizes().num_frames;
    let pixels = match (&args.image, &args.video, &args.input) {
        (Some(_), _, _) if num_frames.is_some() => {
            return Err(wanted(
                args,
                of_video,
                "--video or --input with `pixel_values`",
            ));
        }
        (Some(path), _, _) => pictures(&model, path, FrameSampler::First)?,
        (_, Some(path), _) => {
            let count = num_frames.unwrap_or(FRAMES);
            pictures(&model, path, FrameSampler::Uniform { count })?
        }
        (_, _, Some(path)) => {
            let file = InputFile::read(path)?;
            let key = "pixel_values";
            match num_frames {
                None => {
                    let meaning = "four dimensions: pictures, colours, height, width";
                    PixelValues::Pictures(file.numbers(key, meaning, device)?)
                }
                Some(_) => {
                    let meaning = "five dimensions: clips, frames, colours, height, width";
                    PixelValues::Videos(file.numbers(key, meaning, device)?)
                }
            }
        }
        _ => {
            let flags = "--image, --video or --input with `pixel_values`";
            return Err(wanted(args, "a vision encoder", flags));
        }
    };
    let states = model.forward(pixels, keep(args.layers))?;
    Ok(hidden_states(states, args.layers))
}

fn pictures(
    model: &VisionModel,
    path: &Path,
    sampler: FrameSampler,
) -> anyhow::Result<PixelValues> {
    let Some(read) = read_pictures(path, Span::ALL, &sampler)? else {
        return Err(RunError::recipe(format!(
            "{} has no pictures",
            path.display()
        )));
    };
    let views: Vec<Picture<'_>> = read
        .iter()
        .map(|picture| Picture {
            width: picture.width as usize,
            height: picture.height as usize,
            data: &picture.data,
        })
        .collect();
    Ok(model.preprocess(&views)?)
}
