/* Made by `make kernels` from the formulas in boxloss/losses. */

#define SOURCE "efe84a2826aae04a"
#define KERNELS(X) \
  X(l1) \
  X(l2) \
  X(smooth_l1) \
  X(balanced_l1) \
  X(iou) \
  X(log_iou) \
  X(squared_iou) \
  X(alpha_iou) \
  X(focaler_iou) \
  X(inner_iou) \
  X(giou) \
  X(tversky_box) \
  X(dice_box) \
  X(diou) \
  X(ciou) \
  X(ciou_aspect_gradient_unit) \
  X(ciou_differentiate_alpha_true) \
  X(ciou_differentiate_alpha_true_aspect_gradient_unit) \
  X(ciou_gated_true) \
  X(ciou_gated_true_aspect_gradient_unit) \
  X(ciou_gated_true_differentiate_alpha_true) \
  X(ciou_gated_true_differentiate_alpha_true_aspect_gradient_unit) \
  X(eiou) \
  X(siou) \
  X(shape_iou) \
  X(mpdiou) \
  X(piou) \
  X(piou_version_2) \
  X(bounded_iou) \
  X(cdiou) \
  X(cdiou_base_log_iou) \
  X(cdiou_base_giou) \
  X(cdiou_base_diou) \
  X(cdiou_base_ciou) \
  X(focal_eiou_detach_weight_false) \
  X(focal_eiou) \
  X(wiou) \
  X(wiou_version_v2) \
  X(wiou_version_v3) \
  X(nwd) \
  X(gwd) \
  X(kld) \
  X(published_iou) \
  X(published_giou) \
  X(published_diou) \
  X(published_ciou)
