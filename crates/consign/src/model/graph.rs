//! The shape of a job: who waits for whom.

use std::collections::VecDeque;

/// Finds the nodes that can never run because they wait for each other, in order; none if there is no cycle.
///
/// `inputs[n]` holds the nodes that node `n` waits for. Takes time linear in nodes and edges, and no recursion: a
/// client chooses the depth.
pub fn stuck(inputs: &[Vec<usize>]) -> Vec<usize> {
    let mut open: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let mut dependents = vec![Vec::new(); inputs.len()];
    for (node, needed) in inputs.iter().enumerate() {
        for &input in needed {
            dependents[input].push(node);
        }
    }
    let mut ready: VecDeque<usize> = (0..inputs.len()).filter(|&node| open[node] == 0).collect();
    while let Some(node) = ready.pop_front() {
        for &dependent in &dependents[node] {
            open[dependent] -= 1;
            if open[dependent] == 0 {
                ready.push_back(dependent);
            }
        }
    }
    (0..inputs.len()).filter(|&node| open[node] > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::stuck;

    #[test]
    fn a_chain_and_a_diamond_are_fine_and_a_ring_is_not() {
        assert!(stuck(&[vec![], vec![0], vec![1]]).is_empty());
        assert!(stuck(&[vec![], vec![0], vec![0], vec![1, 2]]).is_empty());
        assert_eq!(stuck(&[vec![2], vec![0], vec![1], vec![]]), [0, 1, 2]);
        assert_eq!(stuck(&[vec![0]]), [0]);
    }

    #[test]
    fn depth_costs_no_stack() {
        let chain: Vec<Vec<usize>> = (0..100_000_usize).map(|n| n.checked_sub(1).into_iter().collect()).collect();
        assert!(stuck(&chain).is_empty());
    }
}
