//! Unsent bytes as data, and from it.

use super::super::pushed::PushedBytes;
use super::SendBuffer;
use crate::server::snapshot::types::SendBufferSnapshot;
use crate::wire::websocket::{POSITION_MAX, ReplyAssembler};

impl SendBuffer {
    pub(in crate::server::send_queue) fn snapshot(&self) -> SendBufferSnapshot {
        SendBufferSnapshot {
            bytes: self.bytes.clone(),
            wire: self.wire.clone(),
            exchange: self.exchange.as_ref().map(ReplyAssembler::snapshot),
            has_control_frames: self.has_control_frames,
            position: self.position,
            pushed: self.pushed.runs(),
        }
    }

    /// # Errors
    /// If the snapshot is not the state of a buffer.
    pub(in crate::server::send_queue) fn restore(snapshot: SendBufferSnapshot) -> Result<Self, &'static str> {
        let SendBufferSnapshot { bytes, wire, exchange, has_control_frames, position, pushed } = snapshot;
        if position > POSITION_MAX {
            return Err("a position that no stream reaches");
        }
        let pushed = PushedBytes::restore(&pushed, position + bytes.len() as u64)?;
        let exchange = exchange.map(ReplyAssembler::restore).transpose()?;
        Ok(Self { bytes, wire, exchange, has_control_frames, position, pushed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::changed_leaves::for_each_changed_leaf;

    type Step = fn(&mut SendBuffer, &mut Vec<u8>);

    /// Sends a batch, of which the socket takes so many bytes. Encoded, as in TLS, it is a byte
    /// longer.
    fn send(buffer: &mut SendBuffer, sent: &mut Vec<u8>, takes: usize, encodes: bool) {
        let (mut batch, is_encoded) = buffer.take_batch();
        if encodes && !is_encoded {
            batch.insert(0, b'#');
        }
        let takes = takes.min(batch.len());
        sent.extend_from_slice(&batch[..takes]);
        if takes < batch.len() {
            buffer.put_back(batch, takes, encodes);
        } else {
            buffer.batch_sent(batch);
        }
    }

    const STEPS: [Step; 9] = [
        |buffer, _| buffer.append(|out| out.extend_from_slice(b"own")),
        |buffer, _| buffer.push(|out| out.extend_from_slice(b"pushed")),
        |buffer, sent| send(buffer, sent, 5, false),
        |buffer, _| buffer.push(|out| out.extend_from_slice(b"more")),
        |buffer, sent| send(buffer, sent, 100, false),
        |buffer, _| buffer.push(|out| out.extend_from_slice(b"last")),
        |buffer, sent| send(buffer, sent, 2, true),
        |buffer, _| buffer.append(|out| out.extend_from_slice(b"end")),
        |buffer, sent| (0..3).for_each(|_| send(buffer, sent, 100, true)),
    ];

    #[test]
    fn bytes_are_sent_on_wherever_a_batch_is_cut() {
        let mut whole = (SendBuffer::default(), Vec::new());
        let mut counts = Vec::new();
        for step in STEPS {
            counts.push(whole.0.pushed_bytes());
            step(&mut whole.0, &mut whole.1);
        }
        for at in 0..=STEPS.len() {
            let (mut buffer, mut sent) = (SendBuffer::default(), Vec::new());
            STEPS[..at].iter().for_each(|step| step(&mut buffer, &mut sent));
            let snapshot = buffer.snapshot();
            let read = serde_json::from_str(&serde_json::to_string(&snapshot).unwrap()).unwrap();
            let mut restored = SendBuffer::restore(read).unwrap();
            assert_eq!(restored.snapshot(), snapshot);
            for_each_changed_leaf(&snapshot, |changed: SendBufferSnapshot| {
                if let Ok(restored) = SendBuffer::restore(changed.clone()) {
                    assert_eq!(restored.snapshot(), changed);
                }
            });
            for (step, count) in STEPS.iter().zip(&counts).skip(at) {
                assert_eq!(restored.pushed_bytes(), *count);
                step(&mut restored, &mut sent);
            }
            assert_eq!(sent, whole.1, "cut before step {at}");
            assert_eq!(restored.pushed_bytes(), 0);
        }
    }
}
