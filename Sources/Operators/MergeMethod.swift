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

/// What a method needs of a machine for one tensor: what the plan adds up.
package struct OperatorCost: Sendable, Hashable {
    /// How often every input element is read. An order statistic of which a sample gave a wrong idea takes three reads more.
    package let passes: Int
    /// What statistics take beside the tiles.
    package let memory: MemoryNeed

    package init(passes: Int, memory: MemoryNeed = MemoryNeed()) {
        self.passes = passes
        self.memory = memory
    }

    /// The cost of doing one after the other.
    package static func + (left: OperatorCost, right: OperatorCost) -> OperatorCost {
        OperatorCost(passes: left.passes + right.passes, memory: left.memory + right.memory)
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
