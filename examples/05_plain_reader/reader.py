"""A bundle's golden frames without edgeco, written from docs/bundle.md alone: python reader.py NET.edgeco"""

import hashlib
import json
import sys
import zipfile

import numpy as np
import onnxruntime

TYPES = {"F32": ("<f4", 1), "F16": ("<f2", 10), "I8": ("<i1", 3), "U8": ("<u1", 2), "I32": ("<i4", 6)}
TYPES["I64"] = ("<i8", 7)
OPTIONAL = {"border": 0, "starts_at": 0, "before": "border", "rows_per_stream": 1, "rate": 1, "phase": 0}


def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def field(number, value):  # of protobuf: an integer, or bytes after their length
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensors(data):  # of a safetensors member, by name: ONNX's number of the type, and the array
    begin = 8 + int.from_bytes(data[:8], "little")
    for name, t in json.loads(data[8:begin]).items():
        if name != "__metadata__":
            kind, (first, last) = TYPES[t["dtype"]], t["data_offsets"]
            yield name, kind[1], np.frombuffer(data[begin + first : begin + last], kind[0]).reshape(t["shape"])


class Network:
    def __init__(self, path, variant="fp32"):
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        self.manifest = m = json.loads(files.pop("manifest.json"))
        assert m["schema_version"] == 1 and m["members"].keys() == files.keys()
        for name, said in m["members"].items():
            assert (len(files[name]), hashlib.sha256(files[name]).hexdigest()) == (said["size"], said["sha256"]), name
        self.tolerance = m["variants"][variant]["tolerance"]
        self.golden = {name: array for name, _, array in tensors(files[m["golden"]["member"]])}
        weights = b""
        for name, kind, array in tensors(files[m["variants"][variant]["weights"]]):
            dims = b"".join(field(1, size) for size in array.shape)
            weights += field(5, dims + field(2, kind) + field(8, name.encode()) + field(9, array.tobytes()))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it would mention every weight that one phase's graph does not read
        self.phases = [
            graph and onnxruntime.InferenceSession(files[graph] + field(7, weights), options, ["CPUExecutionProvider"])
            for graph in m["variants"][variant]["graphs"]
        ]
        self.histories = [{**OPTIONAL, **history} for history in m["histories"]]
        for h in self.histories:
            h["memory"] = np.full((h["buffers"], h["rows_per_stream"], *h["shape"]), h["border"], h["dtype"])
        time, self.step = m["timeline"], 0
        self.lead = -(-time["warm_from"] // time["stride"]) * time["stride"] if time.get("start") == "replicate" else 0

    def run(self, frames):  # one step: arrays by input name in, arrays by output name out, all without the row axis
        feed, t = {name: frame[None] for name, frame in frames.items()}, self.step
        for h in self.histories:
            n, memory = max(0, (t - h["phase"] + h["rate"] - 1) // h["rate"]), h["memory"]
            oldest = n % h["depth"]
            turn = h["depth"] if h["storage"] in ("ring", "mirror") else h["buffers"]
            h["places"] = [n % turn, n % turn + turn] if h["storage"] == "mirror" else [n % turn]
            block = memory[oldest : oldest + h["depth"]] if h["storage"] == "mirror" else memory
            for read in h["reads"]:
                age = 1 if h["storage"] == "carry" else read.get("age")
                feed[read["name"]] = memory[(n - age) % turn] if age else block
        session, self.step, answers = self.phases[t % len(self.phases)], t + 1, {}
        if session:
            names = [value.name for value in session.get_outputs()]
            wanted = {value.name: feed[value.name] for value in session.get_inputs()}
            answers = dict(zip(names, session.run(names, wanted), strict=True))
        for h in self.histories:
            if h["write"] in answers:
                new = answers.pop(h["write"])
                first = h["before"] == "first" and t == h["starts_at"]
                h["memory"][slice(None) if first else h["places"]] = new if t >= h["starts_at"] else h["border"]
        return {name: answer[0] for name, answer in answers.items()}


def check(net):  # the greatest difference of each output from its golden answers, relative to their magnitude
    m, golden, worst = net.manifest, net.golden, {}
    for s in range(-net.lead, m["golden"]["steps"]):
        turn = max(s, 0) % (m["golden"].get("frames") or m["golden"]["steps"])
        answers = net.run({entry["name"]: golden["frame." + entry["name"]][turn] for entry in m["inputs"]})
        for out in m["outputs"]:
            late, want = net.step - 1 - out["valid_from"], golden["answer." + out["name"]]
            if s >= 0 and late >= 0 and late % out.get("rate", 1) == 0:
                off = np.abs(answers[out["name"]] - want[s]).max() / np.abs(want).max()
                worst[out["name"]] = max(worst.get(out["name"], 0), off)
    return worst


if __name__ == "__main__":
    network = Network(sys.argv[1])
    for output, difference in check(network).items():
        print(f"{output}: {difference:.1e} of {network.tolerance:.0e}")
        assert difference <= network.tolerance
