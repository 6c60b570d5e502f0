package import Core

/// Which inputs a method takes (mergekit-compatible contracts, docs/methods.md).
package struct InputContract: Sendable, Hashable {
    package enum Base: Sendable, Hashable {
        /// The method computes from task vectors: without a base there are none.
        case required
        /// A base in the recipe has its role, but the method does without one.
        case optional
        /// A base in the recipe is an input like any other.
        case plainInput
    }

    package let base: Base
    /// How many inputs besides a base in its role.
    package let models: ClosedRange<Int>

    /// Whether a base in the recipe stands apart from the models.
    package var givesBaseARole: Bool { base != .plainInput }

    package init(base: Base, models: ClosedRange<Int>) {
        self.base = base
        self.models = models
    }
}

/// What becomes of a tensor that too few models have (mergekit-compatible).
package enum IncompleteTensor: Sendable, Hashable {
    case refuse
    /// The only one there is is taken as it is.
    case copyLone
    /// The only one there is is taken if it is the base's.
    case copyLoneBase
    /// The base's is taken; without one the tensor is left out.
    case copyBaseOrLeaveOut
}

/// What an operation needs of a machine for one tensor: memory, which is reserved before it begins, and time, by which shards are
/// compared.
package struct OperatorCost: Sendable, Hashable {
    /// How often every element of the sources is read. An order statistic whose sample was misleading takes three passes more.
    package let passes: Int
    /// Arithmetic operations beyond the few for each element and pass that reading hides: those of a factorization, of fits, of
    /// adapters.
    package let operations: Double
    /// float32 elements of the matrices that the operation holds at once (`TensorPasses.matrix`).
    package let matrixElements: Int
    /// Bytes that the operation takes beside the tiles, its matrices included.
    package let memory: MemoryNeed

    /// - Parameter memory: without the matrices.
    package init(passes: Int, operations: Double = 0, matrixElements: Int = 0, memory: MemoryNeed = MemoryNeed()) {
        self.passes = passes
        self.operations = operations
        self.matrixElements = matrixElements
        self.memory = memory + MemoryNeed(shared: matrixElements * MemoryLayout<Float>.stride)
    }

    /// The cost with more of some things.
    package func adding(passes: Int = 0, operations: Double = 0, memory: MemoryNeed = MemoryNeed()) -> OperatorCost {
        OperatorCost(
            passes: self.passes + passes, operations: self.operations + operations, matrixElements: matrixElements,
            memory: self.memory - matrixNeed + memory)
    }

    private var matrixNeed: MemoryNeed { MemoryNeed(shared: matrixElements * MemoryLayout<Float>.stride) }

    /// What one thread of an ordinary core reads, decodes, computes and writes: bytes per second, and operations per second.
    private static let bytesPerSecond = 2e9, operationsPerSecond = 4e9

    /// Seconds that one thread would take. A rough estimate: good enough to tell a long shard from a short one, whatever the
    /// processor.
    ///
    /// - Parameters:
    ///   - read: bytes of all sources.
    ///   - written: bytes of all outputs.
    package func estimatedSeconds(read: Int, written: Int) -> Double {
        (Double(passes) * Double(read) + Double(written)) / Self.bytesPerSecond + operations / Self.operationsPerSecond
    }
}

/// A merge method, bound to the parameter values of one output tensor.
///
/// A method is one short file that states its maths: it declares its inputs and parameters, and says in `merge` which
/// statistics it takes over the whole tensor and what it then does with each tile. It opens no file, starts no thread
/// and keeps no more than a few numbers between passes.
package protocol MergeMethod: Sendable {
    /// The name that recipes use.
    static var name: String { get }
    /// One sentence for `docs/methods.md` and error messages.
    static var summary: String { get }
    static var inputs: InputContract { get }
    static var parameters: [Parameter] { get }

    /// Reads the values it needs for every chunk; throws when a plan lacks one or when two of them contradict each other.
    init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError)

    /// Whether the result depends on the job's seed.
    static var isRandom: Bool { get }
    /// What becomes of an optional tensor that some models lack, when too few have it for the method.
    static var whenIncomplete: IncompleteTensor { get }

    /// What the method needs for a tensor of that shape.
    func cost(of shape: [Int]) -> OperatorCost

    /// Computes one output tensor. Every element of every block is written exactly once, by one `emit`.
    func merge(_ tensor: TensorPasses) throws
}

extension MergeMethod {
    package static var isRandom: Bool { false }
    package static var whenIncomplete: IncompleteTensor { .refuse }
}

/// Which of a tensor's sources plays which part.
package struct TensorInputs: Sendable, Hashable {
    /// How many sources there are, in recipe order.
    package let count: Int
    /// The source that is the base in its role; `nil` when the method treats a base as any other input.
    package let base: Int?
    /// The key of the tensor's random numbers (`CounterRandom.key`); 0 where the method draws none.
    package let randomKey: UInt64

    package init(count: Int, base: Int? = nil, randomKey: UInt64 = 0) {
        self.count = count
        self.base = base
        self.randomKey = randomKey
    }

    /// The sources that are not the base, in recipe order.
    package var models: [Int] { (0..<count).filter { $0 != base } }

    /// The base, for methods that cannot do without.
    func requiredBase() throws(TesseraError) -> Int {
        guard let base else { throw TesseraError(.badData, "the plan names no base for this tensor") }
        return base
    }
}

/// The methods this build knows, by name.
package enum MergeMethods {
    package static let all: [any MergeMethod.Type] = [
        Linear.self, Slerp.self, NuSlerp.self, MultiSlerp.self, Karcher.self, TaskArithmetic.self, Ties.self, DareLinear.self,
        DareTies.self, DellaLinear.self, Della.self, Breadcrumbs.self, BreadcrumbsTies.self, ModelStock.self, Nearswap.self,
        ArceeFusion.self, SCE.self, RAM.self, RAMPlus.self, Passthrough.self,
    ]

    private static let byName = Dictionary(uniqueKeysWithValues: (all + [Identical.self]).map { ($0.name, $0) })

    /// The method called `name`, also the ones that only the planner may ask for.
    package static func named(_ name: String) -> (any MergeMethod.Type)? { byName[name] }
}
