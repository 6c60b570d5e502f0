import Core
import Recipes

/// Coefficients of each task for each tensor, as JSON: `{"tensors": [name …], "coefficients": {task: [coefficient …] …}}`, with a
/// coefficient, or a list of several for the parts of the tensor, for each of the tensors in order.
struct TaskCoefficients {
    private let file: String
    private var tensors: [ExactText: Int] = [:]
    private var tasks: [ExactText: [[Double]]] = [:]

    /// Coefficients of one task for one tensor.
    private static let partLimit = 65_536

    /// - Throws: `badData` for a file that is not as above.
    init(_ bytes: [UInt8], file: String) throws(TesseraError) {
        self.file = file
        var scanner = JSONScanner(bytes, file: file)
        var names: [ExactText] = [], tasks: [ExactText: [[Double]]] = [:]
        try scanner.object { scanner, key throws(TesseraError) in
            switch key {
            case "tensors":
                try scanner.array { scanner throws(TesseraError) in names.append(ExactText(try scanner.string())) }
            case "coefficients":
                try scanner.object { scanner, task throws(TesseraError) in
                    var own: [[Double]] = []
                    try scanner.array { scanner throws(TesseraError) in own.append(try Self.coefficients(&scanner)) }
                    tasks[ExactText(task)] = own
                }
            default: try scanner.value()
            }
        }
        for (index, name) in names.enumerated() where tensors.updateValue(index, forKey: name) != nil {
            throw refusal("lists the tensor '\(name.string)' twice", advice: "list it once")
        }
        guard !names.isEmpty, !tasks.isEmpty else {
            throw refusal(
                "has no 'tensors' or no 'coefficients'",
                advice: "write {\"tensors\": [names], \"coefficients\": {task: [a number for each tensor]}}")
        }
        for (task, own) in tasks where own.count != names.count {
            throw refusal(
                "has \(own.count) coefficients of '\(task.string)' for \(names.count) tensors",
                advice: "give each task one entry for each tensor")
        }
        self.tasks = tasks
    }

    private static func coefficients(_ scanner: inout JSONScanner) throws(TesseraError) -> [Double] {
        guard scanner.peek() == UInt8(ascii: "[") else { return [try scanner.number()] }
        var own: [Double] = []
        try scanner.array { scanner throws(TesseraError) in
            own.append(try scanner.number())
            guard own.count <= partLimit else { throw scanner.error("more than \(partLimit) coefficients for one tensor") }
        }
        guard !own.isEmpty else { throw scanner.error("no coefficient for a tensor") }
        return own
    }

    /// - Throws: `badData` for a model without coefficients, or two that have the same.
    func check(_ models: [ModelReference]) throws(TesseraError) {
        var owners: [ExactText: ModelReference] = [:]
        for model in models {
            guard let key = key(of: model) else {
                throw refusal(
                    "has no coefficients of '\(model)'",
                    advice: "call the task '\(Self.names(of: model).last ?? "")' under 'coefficients'")
            }
            if let other = owners.updateValue(model, forKey: key) {
                throw refusal(
                    "has '\(key.string)' for both '\(other)' and '\(model)'",
                    advice: "call the tasks by their whole references, as the recipe writes them")
            }
        }
    }

    /// - Returns: `nil` for a tensor or a task that the file does not have.
    func values(of tensor: String, task: ModelReference) -> [Double]? {
        guard let index = tensors[ExactText(tensor)], let key = key(of: task) else { return nil }
        return tasks[key]?[index]
    }

    private func key(of model: ModelReference) -> ExactText? {
        Self.names(of: model).lazy.map { ExactText($0) }.first { tasks[$0] != nil }
    }

    /// The whole reference, and the task, or the last part of the adapter's or the model's path.
    private static func names(of model: ModelReference) -> [String] {
        let path = model.adapter?.path ?? model.path
        return ["\(model)", model.task ?? FilePath.components(of: path).last ?? path]
    }

    private func refusal(_ problem: String, advice: String) -> TesseraError {
        TesseraError(.badData, problem, file: file, advice: advice)
    }
}
