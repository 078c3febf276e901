//! Commands and events in their byte form.

use trunkline_edge_api::wire::{
    MESSAGE_LEN_MAX, decode_command, decode_event, encode_command, encode_event,
};

/// Decodes the input as a command and as an event. What can be read is written and read again to
/// the same.
pub fn api_wire(input: &[u8]) {
    let mut buf = [0; MESSAGE_LEN_MAX];
    if let Ok(command) = decode_command(input) {
        let bytes = encode_command(&command, &mut buf);
        assert_eq!(decode_command(bytes).as_ref(), Ok(&command));
    }
    if let Ok(event) = decode_event(input) {
        let bytes = encode_event(&event, &mut buf);
        assert_eq!(decode_event(bytes).as_ref(), Ok(&event));
    }
}
