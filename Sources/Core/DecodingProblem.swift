extension Error {
    /// What is wrong with a text that cannot be decoded, and where: `tasks[0].name: expected to decode String but found number
    /// instead.`
    package var decodingProblem: String {
        guard let error = self as? DecodingError else { return "\(self)" }
        switch error {
        case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
            return context.told(context.debugDescription)
        case .keyNotFound(let key, let context): return context.told("has no '\(key.stringValue)'")
        @unknown default: return "\(error)"
        }
    }
}

extension DecodingError.Context {
    fileprivate func told(_ problem: String) -> String {
        var place = ""
        for key in codingPath {
            place += key.intValue.map { "[\($0)]" } ?? (place.isEmpty ? "" : ".") + key.stringValue
        }
        let first = problem.prefix(1).lowercased() + problem.dropFirst()
        return place.isEmpty ? first : "\(place): \(first)"
    }
}
