import Checkpoints
import Core
import Operators
import Recipes
import Work

/// The files that a recipe gives its method beside the models (`Parameter.Kind.tensors`, `.coefficients`), opened once each. They
/// are found, pinned and reported as models are.
struct GivenFiles {
    private struct Tensors {
        let checkpoint: Checkpoint
        /// The number of its first file when the files of all inputs are counted in order.
        let firstFile: Int
    }

    private var tensors: [String: Tensors] = [:]
    private var coefficients: [String: TaskCoefficients] = [:]
    private(set) var planned: [PlannedInput] = []

    private static let coefficientByteLimit = 64 << 20

    /// - Throws: `Problems` with every file that cannot be opened.
    static func open(
        _ recipe: Recipe, method: any MergeMethod.Type, inputs: InputSet, request: PlanRequest
    ) throws(Problems) -> GivenFiles {
        var files = GivenFiles(), problems: [TesseraError] = []
        let locator = ModelLocator(request)
        for (parameter, path) in ParameterNames(recipe: recipe, method: method).files {
            do throws(TesseraError) {
                switch parameter.kind {
                case .tensors: try files.openTensors(path.value, after: inputs, locator)
                case .coefficients: try files.openCoefficients(path.value, of: recipe.models, base: recipe.baseModel, locator)
                default: break
                }
            } catch {
                guard error.code == .inputMissing || error.file == path.value else {
                    problems.append(error)
                    continue
                }
                let problem = error.file.map { "\($0): \(error.problem)" } ?? error.problem
                problems.append(
                    TesseraError(
                        error.code, problem, file: recipe.file, line: path.line,
                        advice: error.advice ?? "correct the path under '\(parameter.name)'"))
            }
        }
        guard problems.isEmpty else { throw Problems(problems) }
        return files
    }

    private mutating func openTensors(
        _ path: String, after inputs: InputSet, _ locator: ModelLocator
    ) throws(TesseraError) {
        guard tensors[path] == nil else { return }
        let firstFile = inputs.fileCount + planned.reduce(0) { $0 + $1.parts.count }
        let checkpoint = try Checkpoint.open(try locator.locate(.init(path: path)), in: locator.roots.files)
        let files = try InputSet.pin(checkpoint, locator)
        tensors[path] = Tensors(checkpoint: checkpoint, firstFile: firstFile)
        planned.append(PlannedInput(path, files))
    }

    private mutating func openCoefficients(
        _ path: String, of models: [ModelReference], base: Located<ModelReference>?, _ locator: ModelLocator
    ) throws(TesseraError) {
        guard coefficients[path] == nil else { return }
        let place = try locator.locate(.init(path: path)), files = locator.roots.files
        let bytes = try files.read(place, maxBytes: Self.coefficientByteLimit)
        let read = try TaskCoefficients(bytes, file: path)
        try read.check(models.filter { $0 != base?.value })
        coefficients[path] = read
        // Such a file has no header, so all of it is pinned.
        let part = ManifestInput.Part(
            file: FilePath.components(of: place).last ?? path, size: bytes.count, headerDigest: try Digest.sha256(of: bytes))
        let version = try files.status(of: place)?.identity ?? ""
        let relative = try locator.roots.relativePath(of: place, workingDirectory: nil)
        planned.append(PlannedInput(path, [InputSet.PlannedFile(part: part, version: version, path: relative)]))
    }

    // MARK: Tensors

    /// What the method is given for one tensor, and its values with those that a file has.
    ///
    /// - Parameters:
    ///   - names: under which a file may have what belongs to a source.
    ///   - values: with the paths of the files.
    /// - Throws: `Problems` naming files that lack what the method needs, or have it in another shape or type.
    func resolve(
        _ spec: OutputTensorSpec, shape: [Int], method: any MergeMethod.Type, inputs: InputSet, values: ParameterValues,
        names: (OutputTensorSpec.Source) -> [String]
    ) throws(Problems) -> (given: [GivenReference], values: ParameterValues) {
        var values = values, given: [GivenReference] = [], problems: [TesseraError] = []
        let wanted = Wanted(tensor: spec.name, shape: shape)
        for parameter in method.parameters {
            switch parameter.kind {
            case .tensors(let kind):
                var owners: [(input: Int?, path: String, names: [String])] = []
                if parameter.scope == .shared, case .text(let path)? = values.shared[parameter.name] {
                    owners.append((nil, path, [spec.name] + spec.sources.flatMap(names)))
                }
                for (index, source) in spec.sources.enumerated() {
                    guard case .text(let path)? = values.perInput[index][parameter.name] else { continue }
                    owners.append((index, path, names(source)))
                }
                do throws(Problems) {
                    given += try find(wanted, kind, of: parameter.name, owners)
                } catch {
                    problems += error.all
                }
            case .coefficients:
                guard case .text(let path)? = values.shared[parameter.name], let file = coefficients[path] else { continue }
                for (index, source) in spec.sources.enumerated() where index != spec.base {
                    let reference = inputs.inputs[source.model].reference
                    let found = names(source).lazy.compactMap { file.values(of: $0, task: reference) }.first
                    guard let numbers = found else {
                        problems.append(
                            TesseraError(
                                .badData, "has no coefficients for this tensor", file: path, tensor: spec.name,
                                advice: "list the tensor under 'tensors', with 0 where it stays as in the base"))
                        break
                    }
                    values.perInput[index][parameter.name] = .numbers(numbers)
                }
            default: continue
            }
        }
        guard problems.isEmpty else { throw Problems(problems) }
        return (given, values)
    }

    /// A tensor of the output, for which files are looked through.
    private struct Wanted {
        let tensor: String
        let shape: [Int]
    }

    private func find(
        _ wanted: Wanted, _ kind: Parameter.GivenTensors, of parameter: String,
        _ owners: [(input: Int?, path: String, names: [String])]
    ) throws(Problems) -> [GivenReference] {
        var expected = wanted.shape
        if kind == .columnSquares {
            guard wanted.shape.count == 2 else { return [] }
            expected = [wanted.shape[1], wanted.shape[1]]
        }
        var found: [GivenReference] = [], lacking: [String] = [], problems: [TesseraError] = []
        for owner in owners {
            let byShape = kind == .partitions ? [wanted.shape.map { "\($0)" }.joined(separator: "x")] : []
            guard let file = tensors[owner.path],
                let (part, entry) = (owner.names + byShape).lazy.compactMap({ file.checkpoint.tensor(named: $0) }).first
            else {
                lacking.append(owner.path)
                continue
            }
            if let problem = kind.problem(entry, expected: expected) {
                problems.append(
                    TesseraError(
                        .badData, problem, file: owner.path, tensor: entry.name,
                        advice: "give '\(parameter)' a file that was made for these models"))
            }
            found.append(
                GivenReference(
                    GivenTensor.Role(parameter: parameter, input: owner.input, file: owner.path),
                    StoredReference(entry, inFile: file.firstFile + part)))
        }
        // A matrix without a Gram matrix in any file, and a tensor that needs no partition, are merged without.
        let mayLack = kind == .partitions || (kind == .columnSquares && found.isEmpty)
        if !mayLack {
            problems += lacking.map { path in
                TesseraError(
                    .badData, "has no tensor for '\(wanted.tensor)', which '\(parameter)' needs", file: path,
                    tensor: wanted.tensor,
                    advice: kind == .columnSquares
                        ? "add it, or take it out of the other models' files" : "give '\(parameter)' a file with every tensor")
            }
        }
        guard problems.isEmpty else { throw Problems(problems) }
        return found
    }
}

extension PlannedInput {
    fileprivate init(_ path: String, _ files: [InputSet.PlannedFile]) {
        self.init(
            reference: path, parts: files.map(\.part), versions: files.map(\.version), paths: files.map(\.path))
    }
}

extension Parameter.GivenTensors {
    /// What is wrong with a tensor of a file; `nil` for nothing.
    fileprivate func problem(_ entry: TensorEntry, expected: [Int]) -> String? {
        guard entry.shape == expected else { return "has shape \(entry.shape), and must have \(expected)" }
        let isInteger = [.u8, .i8, .i16, .i32, .i64].contains(entry.dtype), wantsIntegers = self == .partitions
        guard wantsIntegers ? isInteger : entry.dtype.isArithmetic else {
            return "holds \(entry.dtype.rawValue) values, and must hold \(wantsIntegers ? "integers" : "floating-point numbers")"
        }
        return nil
    }
}
