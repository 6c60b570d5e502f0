package import Core

/// Which inputs a method takes (mergekit-compatible contracts, docs/methods.md).
package struct InputContract: Sendable, Hashable {
    package enum Base: Sendable, Hashable {
        /// The method works on task vectors, which need a base.
        case required
        /// The method treats a base differently from the models, but also works without one.
        case optional
        /// The method treats a base like any other model.
        case plainInput
    }

    package let base: Base
    /// The number of models, not counting a base that is treated differently.
    package let models: ClosedRange<Int>

    /// Whether the method treats a base differently from the models.
    package var givesBaseARole: Bool { base != .plainInput }

    package init(base: Base, models: ClosedRange<Int>) {
        self.base = base
        self.models = models
    }
}

/// What to do with a tensor that is missing in so many models that the method cannot merge it (mergekit-compatible).
package enum IncompleteTensor: Sendable, Hashable {
    case refuse
    /// If only one model has it, copy it.
    case copyLone
    /// If only the base has it, copy it.
    case copyLoneBase
    /// Copy the base's; if the base lacks it too, leave the tensor out.
    case copyBaseOrLeaveOut
}

/// What an operation needs for one tensor: memory, which is reserved before the operation begins, and time, by which shards are
/// compared.
package struct OperatorCost: Sendable, Hashable {
    /// How often every element of the sources is read. An order statistic whose sample was misleading takes three passes more.
    package let passes: Int
    /// Arithmetic operations, apart from the few per element and pass that take no longer than reading: a factorization, fits,
    /// adapters.
    package let operations: Double
    /// The number of float64 elements in the matrices that the operation holds at the same time (`TensorPasses.matrix`).
    package let matrixElements: Int
    /// Bytes besides the tiles, including the matrices.
    package let memory: MemoryNeed

    /// - Parameter memory: not including the matrices.
    package init(passes: Int, operations: Double = 0, matrixElements: Int = 0, memory: MemoryNeed = MemoryNeed()) {
        self.passes = passes
        self.operations = operations
        self.matrixElements = matrixElements
        self.memory = memory + MemoryNeed(shared: Self.matrixBytes(matrixElements))
    }

    /// This cost plus the given amounts.
    package func adding(passes: Int = 0, operations: Double = 0, memory: MemoryNeed = MemoryNeed()) -> OperatorCost {
        OperatorCost(
            passes: self.passes + passes, operations: self.operations + operations, matrixElements: matrixElements,
            memory: self.memory - matrixNeed + memory)
    }

    /// `Int.max` for more than there can be.
    private static func matrixBytes(_ elements: Int) -> Int {
        let (bytes, overflows) = elements.multipliedReportingOverflow(by: MemoryLayout<Double>.stride)
        return overflows ? .max : bytes
    }

    private var matrixNeed: MemoryNeed { MemoryNeed(shared: Self.matrixBytes(matrixElements)) }

    /// The throughput assumed for one thread.
    private static let bytesPerSecond = 2e9, operationsPerSecond = 4e9

    /// A rough estimate of the seconds that one thread takes, for comparing shards with each other.
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
/// A method is one short file that states its maths: it declares its inputs and parameters, and `merge` computes statistics over
/// the whole tensor and then each tile of the output. A method opens no file and starts no thread.
package protocol MergeMethod: Sendable {
    /// The name that recipes use.
    static var name: String { get }
    /// One sentence for `docs/methods.md` and error messages.
    static var summary: String { get }
    static var inputs: InputContract { get }
    static var parameters: [Parameter] { get }

    /// - Throws: `badData` when the plan lacks a value, or when values contradict each other.
    init(_ values: ParameterValues, inputs: TensorInputs) throws(TesseraError)

    /// Whether the result depends on the job's seed.
    static var isRandom: Bool { get }
    /// Whether the size or the sign of an entry decides, beside the same entry of other tasks, what becomes of the task's entry.
    static var comparesTasks: Bool { get }
    /// Whether results depend on the linear algebra library (`LinearAlgebra.identity`).
    static var usesLinearAlgebra: Bool { get }
    /// What to do with an optional tensor that too few models have.
    static var whenIncomplete: IncompleteTensor { get }

    /// The shared number by which the method scales what it has merged, if nothing else depends on that number. A sweep over it
    /// merges once: such a method takes several values (`ParameterValues.numbers`) and makes an output for each.
    static var scale: String? { get }

    /// Parameters besides the scale on which nothing depends that the method measures of whole models. A sweep over them measures
    /// once.
    static var unmeasured: Set<String> { get }

    /// What the method must know about the models as wholes before it merges a tensor of the given shape: statistics that are
    /// found one round after the other. Each is a value of every source, by the statistic's name, in later rounds and when the
    /// method merges. No tensor may depend on more than its own parameters here: later rounds' values are not known yet.
    func modelRounds(of shape: [Int]) -> [[ModelStatistic]]
    /// Reports the sums and extremes of one round and tensor, a number for each source.
    func measure(round: Int, _ tensor: TensorPasses) throws
    /// The numbers in the tile whose magnitudes are counted for a statistic and source. Good until the next call.
    func entries(of statistic: String, _ source: Int, _ tile: Tile) throws -> UnsafePointer<Float>
    /// Counts the magnitudes of the statistics in one tensor, from `entries` unless the method says otherwise.
    func count(_ statistics: [String], of tensor: TensorPasses, in counters: MagnitudeCounters) throws -> MagnitudeCounters
    /// What one stage of a round needs for a tensor, without its histograms.
    func measuringCost(of shape: [Int], round: Int) -> OperatorCost

    /// Asked in the plan.
    ///
    /// - Throws: `badData` for a shape that the method cannot work with.
    func check(_ shape: [Int]) throws(TesseraError)

    /// What the method needs for a tensor of the given shape.
    func cost(of shape: [Int]) -> OperatorCost

    /// Computes the output tensor, or one for each value of the scale, and stores all by exactly one call of `emit` or
    /// `emitBytes`. May `report` statistics.
    func merge(_ tensor: TensorPasses) throws
}

extension MergeMethod {
    package static var isRandom: Bool { false }
    package static var comparesTasks: Bool { false }
    package static var usesLinearAlgebra: Bool { false }
    package static var scale: String? { nil }
    package static var unmeasured: Set<String> { [] }
    package static var whenIncomplete: IncompleteTensor { .refuse }

    package func modelRounds(of shape: [Int]) -> [[ModelStatistic]] { [] }
    package func measure(round: Int, _ tensor: TensorPasses) {}
    package func entries(of statistic: String, _ source: Int, _ tile: Tile) throws -> UnsafePointer<Float> {
        UnsafePointer(try tile.taskVector(source))
    }
    package func measuringCost(of shape: [Int], round: Int) -> OperatorCost { OperatorCost(passes: 1) }

    package func check(_ shape: [Int]) {}
}

/// The roles of a tensor's sources.
package struct TensorInputs: Sendable, Hashable {
    /// The number of sources, which are in recipe order.
    package let count: Int
    /// The index of the base; `nil` when there is none or the method treats it like any other model.
    package let base: Int?
    /// The key of the tensor's random numbers (`CounterRandom.key`); 0 if the method uses none.
    package let randomKey: UInt64
    /// The roles of the tensors that the recipe gives beside the sources, in their order.
    package let given: [GivenTensor.Role]
    /// The rank of each source that is the base with an adapter on it, 0 of the base itself; `nil` for all others, and where
    /// nobody knows yet.
    let ranks: [Int?]

    package init(
        count: Int, base: Int? = nil, randomKey: UInt64 = 0, given: [GivenTensor.Role] = [], ranks: [Int?]? = nil
    ) {
        self.count = count
        self.base = base
        self.randomKey = randomKey
        self.given = given
        self.ranks = ranks ?? Array(repeating: nil, count: count)
    }

    /// The sources that are not the base, in recipe order.
    package var models: [Int] { (0..<count).filter { $0 != base } }

    /// - Throws: `badData` if there is no base.
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
        ArceeFusion.self, SCE.self, RAM.self, RAMPlus.self, Passthrough.self, MetaGPT.self, MagMax.self,
        Consensus.self, TSV.self, IsoC.self, IsoCTS.self, WUDI.self, SubspaceBoosting.self, SVC.self, ACTMat.self, TACT.self,
        ACE.self, AnchoredRegression.self, DCMerge.self, STAR.self, CART.self, Fisher.self, RegMean.self, Concrete.self,
        Atlas.self, CABS.self, TallMask.self, EMR.self, LwPTV.self, LoraSum.self, SelfPositioning.self, PCB.self, DOGE.self,
        OPCM.self, CoreSpace.self, KnOTS.self, LARV.self, PRISM.self,
    ]

    private static let byName = Dictionary(uniqueKeysWithValues: (all + [Identical.self]).map { ($0.name, $0) })

    /// Includes methods that only the planner uses.
    package static func named(_ name: String) -> (any MergeMethod.Type)? { byName[name] }
}
