#!/usr/bin/env bash
# Makes the speech in this directory again; see README.md. Needs espeak-ng and sox.
set -euo pipefail
cd "$(dirname "$0")"
seconds=5.6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
speak() {
    local name=$1 voice=$2 text=$3
    espeak-ng -v "$voice" -s 160 -w "$work/$name.wav" "$text"
    sox "$work/$name.wav" -r 8000 -c 1 "$work/$name.8k.wav" gain -n -1 pad 0 "$seconds" trim 0 "$seconds"
    # Room tone: without it the pauses would be equal frames, and a frame could not be told from the next.
    sox -R -n -r 8000 -c 1 "$work/$name.room.wav" synth "$seconds" pinknoise vol 0.01
    sox -R -m "$work/$name.8k.wav" "$work/$name.room.wav" -t raw -e mu-law -b 8 -r 8000 -c 1 "$name.ulaw"
}
speak caller en-us "Good morning. I am calling about the order that was due on Tuesday. Where is it now?"
speak callee en-gb "Thank you for calling. The parcel left us last night and will be with you before noon."
