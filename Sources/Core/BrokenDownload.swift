/// What failed and unfinished downloads leave in place of a file, told by its first bytes.
package enum BrokenDownload {
    /// How many bytes tell enough.
    package static let prefixBytes = 64

    /// - Parameters:
    ///   - beginning: the first bytes of the file, `prefixBytes` of them if there are as many.
    ///   - isText: whether the file should be text, such as JSON.
    /// - Throws: `badData` that says what the file is.
    package static func check(_ beginning: some Collection<UInt8>, isText: Bool, file: String?) throws(TesseraError) {
        let bytes = Array(beginning.prefix(prefixBytes)), text = String(decoding: bytes, as: UTF8.self)
        func fail(_ problem: String, _ advice: String) -> TesseraError {
            TesseraError(.badData, problem, file: file, advice: advice)
        }
        if bytes.isEmpty {
            if isText { throw fail("is empty", "download it again") }
            return
        }
        if text.hasPrefix("version https://git-lfs") {
            throw fail("is a Git LFS pointer, not the file that it stands for", "run 'git lfs pull' in its directory")
        }
        let start = text.drop { $0.isWhitespace }.lowercased()
        if ["<!doctype", "<html", "<?xml"].contains(where: { start.hasPrefix($0) }) {
            throw fail(
                "is a web page, not the file that should be here", "download it again; a gated model needs a login or a token")
        }
        guard bytes.count < prefixBytes || bytes.contains(where: { $0 != 0 }) else {
            throw fail("begins with zeros only: its download was not finished", "download it again")
        }
        guard !isText else { return }
        // As the length of a header, each of these beginnings is larger than any that is allowed, but for the zip file's.
        let pickles: [[UInt8]] = [[0x80, 2, 0x8a, 0x0a], [0x80, 2, 0x7d, 0x71]]
        if bytes.starts(with: Array("PK\u{3}\u{4}".utf8)) || pickles.contains(where: { bytes.starts(with: $0) }) {
            throw fail("is a PyTorch or zip file, not safetensors", "convert it with transformers' save_pretrained")
        }
        if bytes.starts(with: Array("GGUF".utf8)) {
            throw fail("is a GGUF file, not safetensors", ggufAdvice)
        }
        if bytes.starts(with: Array("\u{89}HDF".unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) })) {
            throw fail("is an HDF5 file, as of TensorFlow, not safetensors", "convert it with transformers' save_pretrained")
        }
        if bytes.count >= 8, bytes.allSatisfy({ (0x20..<0x7f).contains($0) || $0 == 0x0a || $0 == 0x0d || $0 == 0x09 }) {
            let line = text.prefix { !$0.isNewline }
            throw fail("is text, such as a server's answer, not safetensors: '\(line)'", "download it again")
        }
    }

    package static let ggufAdvice =
        "use the model it was made from; or load it with transformers (from_pretrained(…, gguf_file=…)), which dequantizes it, "
        + "and call save_pretrained"
}
