/// A model reference in a recipe: `path[@revision][+adapter[@revision]]`, or `store#task` for a fine-tune in a task-vector
/// store.
///
/// Two references denote the same model only if they are written the same.
package struct ModelReference: Sendable, Hashable {
    package struct Source: Sendable, Hashable {
        package let path: String
        package let revision: String?

        package init(path: String, revision: String? = nil) {
            self.path = path
            self.revision = revision
        }

        /// `path` or `path@revision`.
        init?(parsing text: String) {
            let parts = text.split(separator: "@", omittingEmptySubsequences: false).map(String.init)
            guard parts.count <= 2, parts.allSatisfy({ !$0.isEmpty }) else { return nil }
            self.init(path: parts[0], revision: parts.count == 2 ? parts[1] : nil)
        }
    }

    package let model: Source
    package let adapter: Source?
    /// The task, if the model is a task-vector store.
    package let task: String?

    package init(model: Source, adapter: Source? = nil, task: String? = nil) {
        self.model = model
        self.adapter = adapter
        self.task = task
    }

    /// - Returns: `nil` for an empty path or a repeated `+`, `@` or `#`.
    package init?(parsing text: String) {
        if text.contains("#") {
            let parts = text.split(separator: "#", omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty }) else { return nil }
            self.init(model: Source(path: parts[0]), task: parts[1])
            return
        }
        let halves = text.split(separator: "+", omittingEmptySubsequences: false).map(String.init)
        guard halves.count <= 2, let model = Source(parsing: halves[0]) else { return nil }
        var adapter: Source?
        if halves.count == 2 {
            guard let parsed = Source(parsing: halves[1]) else { return nil }
            adapter = parsed
        }
        self.init(model: model, adapter: adapter)
    }

    package var path: String { model.path }
}

extension ModelReference.Source: CustomStringConvertible {
    package var description: String { revision.map { "\(path)@\($0)" } ?? path }
}

extension ModelReference: CustomStringConvertible {
    package var description: String {
        task.map { "\(model)#\($0)" } ?? adapter.map { "\(model)+\($0)" } ?? model.description
    }
}
