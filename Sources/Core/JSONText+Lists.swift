/// Edits of arrays and objects inside the text. Only added or removed entries change bytes.
extension JSONText {
    /// An element of an array or a member of an object.
    package struct Child: Sendable, Hashable {
        /// `nil` in an array.
        package let key: String?
        /// The value as written.
        package let value: [UInt8]
    }

    private struct Place {
        let key: String?
        /// From the key, if there is one, to the end of the value.
        let whole: Range<Int>
        let value: Range<Int>
    }

    /// The value at `path` as written.
    package func json(_ path: [String]) -> String? {
        range(of: path).map { String(decoding: bytes[$0], as: UTF8.self) }
    }

    /// The elements of the array at `path`, each as written; `nil` if there is no array.
    package func elements(_ path: [String]) -> [String]? {
        (try? list(at: path, opening: "["))?.children.map { String(decoding: bytes[$0.value], as: UTF8.self) }
    }

    /// The elements of an array that is a text of its own, each as written; `nil` for anything else.
    package static func elements(of json: String) -> [String]? {
        var scanner = JSONScanner(Array(json.utf8), file: nil), elements: [String] = []
        guard scanner.peek() == UInt8(ascii: "[") else { return nil }
        let found: Void? = try? scanner.array { scanner throws(TesseraError) in
            let range = try scanner.value()
            elements.append(String(decoding: scanner.bytes(of: range), as: UTF8.self))
        }
        return found.map { elements }
    }

    /// The members of the object at `path`; `nil` if there is no object.
    package func members(_ path: [String]) -> [Child]? {
        (try? list(at: path, opening: "{"))?.children.map { Child(key: $0.key, value: Array(bytes[$0.value])) }
    }

    /// Replaces the value at `path`, if it exists.
    ///
    /// - Returns: whether the value existed.
    @discardableResult
    package mutating func replace(_ path: [String], withJSON json: String) -> Bool {
        guard let range = range(of: path) else { return false }
        bytes.replaceSubrange(range, with: json.utf8)
        return true
    }

    /// Appends elements to the array at `path`, each on its own line if the first element is.
    ///
    /// - Throws: `badData` if there is no array.
    package mutating func append(_ elements: [String], to path: [String]) throws(TesseraError) {
        try append(elements, to: path, opening: "[")
    }

    /// Appends members to the object at `path`. The caller must not pass existing keys.
    ///
    /// - Throws: `badData` if there is no object.
    package mutating func append(members: [(key: String, json: String)], to path: [String]) throws(TesseraError) {
        try append(members.map { "\(Self.quoted($0.key)): \($0.json)" }, to: path, opening: "{")
    }

    private mutating func append(_ items: [String], to path: [String], opening: Unicode.Scalar) throws(TesseraError) {
        guard !items.isEmpty else { return }
        let list = try list(at: path, opening: opening)
        let indent = list.children.first.map { Array(bytes[list.range.lowerBound + 1..<$0.whole.lowerBound]) } ?? []
        let separator = [UInt8(ascii: ",")] + (indent.isEmpty && list.children.isEmpty ? [0x20] : indent)
        var added: [UInt8] = []
        for item in items {
            if !added.isEmpty || !list.children.isEmpty { added += separator }
            added += item.utf8
        }
        bytes.insert(contentsOf: added, at: list.children.last?.whole.upperBound ?? list.range.lowerBound + 1)
    }

    /// Removes the elements or members at `path` for which `stays` returns false.
    ///
    /// - Throws: `badData` if there is no array or object, and what `stays` throws.
    package mutating func keep(in path: [String], where stays: (Child) throws(TesseraError) -> Bool) throws(TesseraError) {
        let list = try list(at: path, opening: nil)
        var kept: [UInt8] = []
        var isFirst = true
        for (index, place) in list.children.enumerated()
        where try stays(Child(key: place.key, value: Array(bytes[place.value]))) {
            let before = index == 0 ? list.range.lowerBound + 1 : list.children[index - 1].whole.upperBound
            // The first one that stays takes the place, and so the white space, of the first one that was there.
            if isFirst {
                kept += bytes[list.range.lowerBound + 1..<list.children[0].whole.lowerBound]
                isFirst = false
            } else {
                kept += bytes[before..<place.whole.lowerBound]
            }
            kept += bytes[place.whole]
        }
        let end = list.range.upperBound - 1
        if !isFirst, let last = list.children.last { kept += bytes[last.whole.upperBound..<end] }
        bytes.replaceSubrange(list.range.lowerBound + 1..<end, with: kept)
    }

    /// - Parameter opening: the bracket that the value at `path` must begin with; `nil` for either.
    private func list(at path: [String], opening: Unicode.Scalar?) throws(TesseraError) -> (range: Range<Int>, children: [Place])
    {
        let wanted = opening.map { [UInt8(ascii: $0)] } ?? [UInt8(ascii: "["), UInt8(ascii: "{")]
        guard let range = range(of: path), wanted.contains(bytes[range.lowerBound]) else {
            let kind = opening == "[" ? "array" : opening == "{" ? "object" : "array or object"
            throw TesseraError(.badData, "has no \(kind) '\(path.joined(separator: "."))'", file: file)
        }
        var children: [Place] = []
        var scanner = JSONScanner(bytes, file: file, from: range.lowerBound)
        if bytes[range.lowerBound] == UInt8(ascii: "[") {
            try scanner.array { scanner throws(TesseraError) in
                let value = try scanner.value()
                children.append(Place(key: nil, whole: value, value: value))
            }
        } else {
            // The scanner stands behind the colon when it hands a key over; the key began behind the member before.
            var previous = range.lowerBound + 1
            try scanner.object { scanner, key throws(TesseraError) in
                let value = try scanner.value()
                let start = bytes[previous...].firstIndex(of: UInt8(ascii: "\"")) ?? value.lowerBound
                children.append(Place(key: key, whole: start..<value.upperBound, value: value))
                previous = value.upperBound
            }
        }
        return (range, children)
    }
}
