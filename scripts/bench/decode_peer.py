#!/usr/bin/env python3
"""Reads pictures the way most training scripts do, to be compared with `limbic bench decode`.

FFmpeg decodes a clip, keeps the wanted pictures, converts them to RGB and pipes them to Python, where Pillow makes them
square, bicubic. Which pictures these are (the ones on screen in the middles of equal parts of the clip) is found out once,
before the clock runs, as is the length of the clip. FFmpeg stops after the last of them. Colours are converted with the
flags that limbic gives to the same library. Seconds are those that all processes together kept a core busy.

    pip install pillow          # and the programs ffmpeg and ffprobe
    decode_peer.py clips/*.mp4 --frames 8 --size 224

Prints one JSON line with the keys of `limbic bench decode`.
"""
import argparse
import json
import resource
import statistics
import subprocess
import time

import PIL
from PIL import Image

SCALER = "bilinear+full_chroma_int+full_chroma_inp+accurate_rnd"


class Clip:
    """A file, its size in pixels, and the numbers of the pictures to keep."""

    def __init__(self, path, count):
        self.path = path
        entries = "stream=width,height:format=duration:frame=pts_time,best_effort_timestamp_time"
        command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", entries, "-of", "json", path]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        self.width, self.height = (found["streams"][0][key] for key in ("width", "height"))
        self.seconds = float(found["format"]["duration"])
        starts = [float(frame.get("pts_time", frame["best_effort_timestamp_time"])) for frame in found["frames"]]
        middles = [(part + 0.5) / count * self.seconds for part in range(count)]
        on_screen = [max((i for i, start in enumerate(starts) if start <= moment), default=0) for moment in middles]
        self.on_screen = on_screen
        self.kept = sorted(set(on_screen))

    def read(self, size, threads):
        """The pictures, `size` times `size` pixels each, as many as were asked for."""
        chosen = "+".join(f"eq(n\\,{number})" for number in self.kept)
        command = ["ffmpeg", "-v", "error", "-nostdin", "-threads", str(threads), "-i", self.path, "-an",
                   "-vf", f"select={chosen}", "-vsync", "passthrough", "-frames:v", str(len(self.kept)),
                   "-sws_flags", SCALER, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
        length = self.width * self.height * 3
        small = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=length) as process:
            for number in self.kept:
                pixels = process.stdout.read(length)
                if len(pixels) != length:
                    raise SystemExit(f"{self.path}: ffmpeg gave no picture {number}")
                picture = Image.frombuffer("RGB", (self.width, self.height), pixels, "raw", "RGB", 0, 1)
                small[number] = picture.resize((size, size), Image.BICUBIC).tobytes()
        return [small[number] for number in self.on_screen]


def busy():
    """Seconds that cores worked for this process and its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1, help="threads of ffmpeg's decoder")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--out", help="write all pictures of the last pass, one after the other, to this file")
    args = parser.parse_args()

    clips = [Clip(path, args.frames) for path in args.files]
    seconds, pictures, began = [], [], 0.0
    for step in range(args.warmup + args.steps):
        if step == args.warmup:
            began = busy()
        start = time.perf_counter()
        pictures = [picture for clip in clips for picture in clip.read(args.size, args.threads)]
        if step >= args.warmup:
            seconds.append(time.perf_counter() - start)
    worked = (busy() - began) / args.steps
    if args.out:
        with open(args.out, "wb") as file:
            file.writelines(pictures)

    media = sum(clip.seconds for clip in clips)
    median = statistics.median(seconds)
    print(json.dumps({
        "stack": f"ffmpeg | pillow {PIL.__version__}", "bench": "decode", "kind": "video", "files": len(clips),
        "frames": len(pictures), "frames_per_s": round(len(pictures) / median, 1), "media_s": round(media, 3),
        "median_pass_s": round(median, 5), "min_pass_s": round(min(seconds), 5), "max_pass_s": round(max(seconds), 5),
        "times_real_time": round(media / median, 2), "times_real_time_per_core": round(media / worked, 2),
        "shape": {key: value for key, value in vars(args).items() if key not in ("files", "out")},
    }))


if __name__ == "__main__":
    main()
